"""This modeloci beside an earlier one (`--beside`): what a change of the code costs.

Both get the same data and the same archives, which the earlier one wrote. All figures are times of
whole commands, or of reads through a mount of the binary's own. Below 1 is faster than before.
"""

import copy
import shutil

from ..layouts import foreign_archive
from ..measure import interleave, timed
from ..workspace import files, warm
from .foreign import MEDIA_TYPE
from .random import foreign_layer

# Mounts and listings are so short that one of them says nothing.
REPEATS = 8


def archives(earlier, bench):
    """What is read, by name: bytes of every kind, many small files, another tool's layer."""
    made = {kind: earlier.pack(bench.data.model(kind, bench.medium)) for kind in ("bf16", "fp32")}
    made["small files"] = earlier.pack(bench.data.many(1_000, 5_000))
    layer = foreign_layer(bench)
    made["foreign"] = bench.space.path("foreign.tar")
    title = next(files([bench.data.model("bf16", bench.size)])).name
    foreign_archive(layer, title, MEDIA_TYPE, made["foreign"])
    warm(*made.values())
    return made


def commands(bench, made):
    """Whole commands, as functions that return seconds."""
    def pack(kind, compression):
        model = bench.data.model(kind, bench.medium)
        warm(model)
        output = bench.space.memory_path("packed.tar", bench.medium)
        return lambda: timed(bench.pack_command(model, compression, output))

    def unpack(archive):
        def once():
            output = bench.space.path("unpacked")
            seconds = timed([bench.modeloci, "unpack", archive, output])
            shutil.rmtree(output)
            return seconds
        return once

    def inspect(archive, *options):
        return lambda: timed([bench.modeloci, "inspect", archive, *options])

    def mount(archive):
        return lambda: min(bench.mount_seconds(archive) for _ in range(REPEATS))
    return {
        "pack bf16, auto": pack("bf16", "auto"),
        "pack fp32, none": pack("fp32", "none"),
        "inspect bf16": inspect(made["bf16"]),
        "inspect bf16, one thread": inspect(made["bf16"], "-j", "1"),
        "inspect small files": inspect(made["small files"]),
        "inspect foreign": inspect(made["foreign"]),
        "unpack bf16": unpack(made["bf16"]),
        "unpack small files": unpack(made["small files"]),
        "mount bf16": mount(made["bf16"]),
        "mount small files": mount(made["small files"]),
        "mount foreign": mount(made["foreign"]),
    }


def reads(bench, made):
    """First reads through mounts, as functions that return seconds."""
    count = 50 if bench.quick else 400

    def through(archive, way, *words):
        def once():
            with bench.mount(archive) as mount:
                found = bench.read(way, mount.path, *words)
                return found["p50"] if way == "random" else found["seconds"]
        return once

    def listing():
        with bench.mount(made["small files"]) as mount:
            return sum(timed(["ls", "-lR", mount.path]) for _ in range(REPEATS))
    return {
        "read bf16": through(made["bf16"], "seq"),
        "read fp32, stored": through(made["fp32"], "seq"),
        "read bf16, mapped": through(made["bf16"], "mmap"),
        "read small files": through(made["small files"], "seq"),
        "read foreign": through(made["foreign"], "seq"),
        "4 KiB anywhere in bf16": through(made["bf16"], "random", "--count", count),
        "4 KiB anywhere in fp32": through(made["fp32"], "random", "--count", count),
        "list small files": listing,
    }


def run(bench, report):
    if not bench.beside:
        report.row("an earlier modeloci", None, "none was named: --beside FILE")
        return
    earlier = copy.copy(bench)
    earlier.modeloci = bench.beside
    made = archives(earlier, bench)
    for contenders in (commands, reads):
        now, before = contenders(bench, made), contenders(earlier, made)
        for name in now:
            timings = interleave(max(3, bench.runs), {"now": now[name], "before": before[name]})
            ratio = timings.ratio("now", "before")
            if ratio is None:
                report.row(name, None, *timings.missing.values())
                continue
            spread = [a / b for a, b in zip(timings.rounds["now"], timings.rounds["before"])]
            report.row(name, f"{ratio:.2f} x", f"{timings.median('before') * 1e3:,.1f} ms before",
                       f"rounds {min(spread):.2f} to {max(spread):.2f}")
