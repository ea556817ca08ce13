"""First pass through the mount: archive in the page cache, on a cold disk, and on a slow one.

Every read gets a mount of its own. On the cold disk, both the archive and the original are dropped
from the page cache before each round; the slow disk is the same one behind a control group's limit
on reads (blkio.throttle or io.max), with reader and server in the group.

Two more figures tell what is possible on the machine at hand: the yardstick that verifies is the
least that any server of verified bytes must do, and processor time cannot be less than that of the
library and of FUSE together.
"""

import os

from ..control import Group
from ..environment import Unavailable
from ..measure import Timings, interleave, processor_time
from ..workspace import chill, warm

SLOW = 200 << 20


def through(bench, mount, *words, work=None):
    """A contender that reads through a mount of its own; adds the processor time that server and
    reader took to the list `work`."""
    def once():
        with mount() as server:
            before = processor_time(server.process.pid)
            seconds = bench.seconds(words[0], server.path, *words[1:])
            if work is not None:
                work.append(processor_time(server.process.pid) - before)
            return seconds
    return once


def in_mount(bench, archive, *words, options=(), work=None):
    return through(bench, lambda: bench.mount(archive, *options), *words, work=work)


def in_yardstick(bench, model, *words, options=(), work=None):
    return through(bench, lambda: bench.yardstick(model, *options), *words, work=work)


def cached(bench, report, stored, model):
    """A stored layer beside the yardstick."""
    warm(stored, model)
    ways = {
        "seq": ["seq"],
        "mmap": ["mmap"],
        "8 threads, random 1 MiB": ["random", "--threads", 8, "--block", 1 << 20, "--count", 4096],
    }
    contenders = {}
    for way, words in ways.items():
        contenders[f"{way}, mount"] = in_mount(bench, stored, *words)
        contenders[f"{way}, yardstick"] = in_yardstick(bench, model, *words)
        contenders[f"{way}, verifying yardstick"] = in_yardstick(
            bench, model, *words, options=["--verify", "on"])
    timings = interleave(max(3, bench.runs), contenders)
    report.note("stored (fp32), archive in the page cache:")
    report.timings(timings, lambda _: bench.medium)
    for way in ways:
        report.target(f"stored, {way} beside the yardstick that verifies",
                      timings.ratio(f"{way}, verifying yardstick", f"{way}, mount"), ">=", 0.95)
        ratio = timings.ratio(f"{way}, yardstick", f"{way}, mount")
        report.row(f"{way}: mount beside the one that does not", ratio and f"{ratio:.2f} x")


def decoded(bench, report, packed, model):
    """A compressed layer beside the library itself."""
    warm(packed, model)
    work = {"mount": [], "yardstick": [], "library": []}

    def library():
        before = processor_time()
        seconds = bench.seconds("library", packed, "seq")
        work["library"].append(processor_time() - before)
        return seconds
    timings = interleave(max(3, bench.runs), {
        "seq, mount": in_mount(bench, packed, "seq", work=work["mount"]),
        "seq, library": library,
        "seq, yardstick": in_yardstick(bench, model, "seq", work=work["yardstick"]),
    })
    report.note("bf16 by auto, archive in the page cache:")
    report.timings(timings, lambda _: bench.medium)
    report.target("bf16 beside the library",
                  timings.ratio("seq, library", "seq, mount"), ">=", 0.85)
    times = Timings()
    times.rounds = work
    for name in work:
        if work[name]:
            report.row(f"processor time, {name}", f"{times.median(name) * 1e3:,.0f} ms")
    if all(work.values()):
        least = (times.median("library") + times.median("yardstick")) / os.cpu_count()
        report.row("beside the library, if no processor ever rested",
                   f"{timings.median('seq, library') / least:.2f} x",
                   "the work of library and yardstick together, on all processors")


def disk(bench, report, stored, stored_model, packed, model):
    """Nothing in the page cache."""
    def cold(path, once):
        def run():
            chill(path)
            return once()
        return run
    timings = interleave(max(3, bench.runs), {
        "stored, mount": cold(stored, in_mount(bench, stored, "seq")),
        "stored, the original file": cold(
            stored_model, lambda: bench.seconds("seq", stored_model, "--block", 128 << 10)),
        "bf16, mount": cold(packed, in_mount(bench, packed, "seq")),
        "bf16, the original file": cold(
            model, lambda: bench.seconds("seq", model, "--block", 128 << 10)),
    })
    report.note("cold disk (the original read as cat does, 128 KiB at a time):")
    report.timings(timings, lambda _: bench.medium)
    report.target("stored on a cold disk beside cat of the original",
                  timings.ratio("stored, the original file", "stored, mount"), ">=", 0.9)
    speed = bench.medium / timings.median("bf16, the original file") / 1e6
    ratio = timings.ratio("bf16, the original file", "bf16, mount")
    if speed < 1000:
        report.target("bf16 on a cold disk below 1 GB/s beside cat", ratio, ">=", 1)
    else:
        report.row("bf16 beside cat", f"{ratio:.2f} x", "no target: this disk gives over 1 GB/s")


def slow(bench, report, packed, model):
    """The disk throttled to 200 MiB/s."""
    def original():
        chill(model)
        return bench.seconds("seq", model, "--block", 128 << 10)

    def mounted():
        chill(packed)
        return in_mount(bench, packed, "seq")()
    try:
        with Group("io") as group:
            group.limit_reads(packed, SLOW)
            # Servers and readers are started from here, so they are all in the group.
            group.add(os.getpid())
            timings = interleave(bench.runs, {
                "bf16, mount": mounted, "bf16, the original file": original,
            })
    except Unavailable as reason:
        report.row("slow disk", None, str(reason))
        return
    report.note(f"disk throttled to {SLOW >> 20} MiB/s by a control group:")
    report.timings(timings, lambda _: bench.medium)
    report.target("bf16 on the slow disk beside cat of the original",
                  timings.ratio("bf16, the original file", "bf16, mount"), ">=", 1)


def run(bench, report):
    model, stored_model = (bench.data.model(kind, bench.medium) for kind in ("bf16", "fp32"))
    packed, stored = bench.pack(model), bench.pack(stored_model)
    cached(bench, report, stored, stored_model)
    decoded(bench, report, packed, model)
    disk(bench, report, stored, stored_model, packed, model)
    slow(bench, report, packed, model)
