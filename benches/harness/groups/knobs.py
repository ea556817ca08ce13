"""What each knob of the mount is worth: one at a time turned back, beside all of them on.

The product's own options where it has them, the yardstick's for the rest.
"""

from ..measure import interleave
from ..workspace import warm

OURS = {
    "all": [],
    "1 event loop": ["-o", "threads=1"],
    "2 event loops": ["-o", "threads=2"],
    "16 event loops": ["-o", "threads=16"],
    "readahead 128 KiB": ["-o", "max_readahead=128K"],
    "readahead 4 MiB": ["-o", "max_readahead=4M"],
    "readahead 16 MiB": ["-o", "max_readahead=16M"],
}
YARDSTICK = {
    "all": [],
    "page cache dropped at open": ["--keep-cache", "off"],
    "open and opendir ask": ["--opens", "on"],
    "no readdirplus": ["--readdirplus", "off"],
    "no TTL": ["--ttl", "off"],
    "1 event loop": ["--threads", "1"],
    "readahead 128 KiB": ["--readahead", 128 << 10],
    "4 background requests": ["--background", "4"],
}


def show(report, timings, ways, options):
    for way in ways:
        for name in options:
            ratio = timings.ratio(f"{way}: {name}", f"{way}: all")
            label = f"{way}: {name}"
            report.row(label, ratio and f"{ratio:.2f} x", timings.missing.get(label))


def run(bench, report):
    archive = bench.pack(bench.data.model("bf16", bench.medium))
    warm(archive)

    def ours(options, way):
        def once():
            with bench.mount(archive, *options) as mount:
                return bench.seconds(way, mount.path)
        return once
    ways = ("seq", "mmap")
    report.note("time of a cold pass over bf16 by auto, beside that with all knobs on:")
    show(report, interleave(bench.runs, {
        f"{way}: {name}": ours(options, way) for way in ways for name, options in OURS.items()
    }), ways, OURS)

    large = bench.data.model("fp32", bench.medium)
    small = bench.data.many(1000 if bench.quick else 10_000, 4000)
    warm(large, small)

    def yardstick(options, model, way, passes):
        def once():
            with bench.yardstick(model, *options) as mount:
                for _ in range(passes):
                    seconds = bench.seconds(way, mount.path)
                return seconds
        return once
    cases = {
        "large file, first pass": (large, "seq", 1),
        "large file, second pass": (large, "seq", 2),
        "large file, second mmap": (large, "mmap", 2),
        "small files, first pass": (small, "seq", 1),
        "small files, second pass": (small, "seq", 2),
    }
    report.note("the yardstick, beside itself with all knobs on:")
    show(report, interleave(bench.runs, {
        f"{case}: {name}": yardstick(options, *how)
        for case, how in cases.items() for name, options in YARDSTICK.items()
    }), cases, YARDSTICK)
