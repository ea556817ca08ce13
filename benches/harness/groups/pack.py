"""Packing: rate and size for every kind of data, and beside pigz, zstd and Python's tarfile.

The peers get a `tar` stream (no digests at all: they are spared what packing here includes), and
all write to memory. Slow peers get less data; rates are compared.
"""

import subprocess

from ..data import KINDS
from ..environment import tool
from ..measure import interleave, piped, timed
from ..workspace import files, warm

TARFILE = "import sys, tarfile; tarfile.open(sys.argv[2], 'w:gz').add(sys.argv[1], '.')"


def size_of(directory):
    return sum(path.stat().st_size for path in files([directory]))


def kinds(bench, report):
    """What `auto` does with each type of data."""
    for kind in KINDS:
        model = bench.data.model(kind, bench.small)
        warm(model)
        output = bench.space.memory_path("packed.tar", bench.small)
        timings = interleave(bench.runs, {
            "auto": lambda: timed(bench.pack_command(model, "auto", output)),
        })
        size, seconds = size_of(model), timings.median("auto")
        if seconds is None:
            report.row(f"auto, {kind}", None, timings.missing["auto"])
            continue
        share = output.stat().st_size / size
        report.row(f"auto, {kind}", f"{size / seconds / 1e6:,.0f} MB/s", f"size {share:.3f}")
        if kind == "bf16":
            report.target("size of bf16 by auto", share, "<=", 0.80)


def run(bench, report):
    kinds(bench, report)
    big, small = (bench.data.model("bf16", size) for size in (bench.medium, bench.small))
    warm(big, small)
    amount, sizes = {}, {}

    def contender(name, model, run):
        amount[name] = size_of(model)

        def once():
            output = bench.space.memory_path("out", bench.medium)
            seconds = run(model, output)
            sizes[name] = output.stat().st_size
            output.unlink()
            # Seconds for a fixed amount, so that those with less data can be compared.
            return seconds / amount[name]
        return once

    def ours(compression):
        return lambda model, output: timed(bench.pack_command(model, compression, output))

    def tar_into(*command):
        def once(model, output):
            with open(output, "wb") as file:
                return piped(["tar", "-C", model, "-cf", "-", "."], command, output=file)
        return once

    def tarfile(model, output):
        return timed(["python3", "-c", TARFILE, model, output])

    contenders = {
        "modeloci auto": contender("modeloci auto", big, ours("auto")),
        "zstd -1 -T2": contender("zstd -1 -T2", big, tar_into("zstd", "-q", "-c", "-1", "-T2")),
        "modeloci none": contender("modeloci none", big, ours("none")),
        "modeloci zstd:1": contender("modeloci zstd:1", big, ours("zstd:1")),
        "igzip": contender("igzip", big, tar_into("igzip", "-c")),
        "modeloci gzip:6": contender("modeloci gzip:6", small, ours("gzip:6")),
        "pigz -6 -p2": contender("pigz -6 -p2", small, tar_into("pigz", "-c", "-6", "-p2")),
        "Python tarfile w:gz": contender("Python tarfile w:gz", small, tarfile),
    }
    timings = interleave(bench.runs, contenders)
    notes = {name: f"size {size / amount[name]:.3f}" for name, size in sizes.items()}
    report.note("bf16:")
    report.timings(timings, lambda _: 1, notes=notes)

    def faster(name, peer):
        return timings.ratio(peer, name)
    report.target("auto beside pigz -6 -p2", faster("modeloci auto", "pigz -6 -p2"), ">=", 12)
    report.target("auto beside zstd -1 -T2", faster("modeloci auto", "zstd -1 -T2"), ">=", 1.5)
    report.target("gzip:6 beside pigz -6 -p2", faster("modeloci gzip:6", "pigz -6 -p2"), ">=", 1.5)
    both = sizes.get("modeloci gzip:6"), sizes.get("pigz -6 -p2")
    report.target("size of gzip:6 beside pigz -6",
                  both[0] / both[1] if all(both) else None, "<=", 1.01)
    for ours_ in ("modeloci auto", "modeloci gzip:6", "modeloci none", "modeloci zstd:1"):
        report.target(f"{ours_} beside Python's tarfile",
                      faster(ours_, "Python tarfile w:gz"), ">=", 10)
