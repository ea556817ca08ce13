"""How much later the first byte of a large layer comes than that of a small one: mount, open, and
read the last 4 KiB."""

from ..measure import interleave
from ..workspace import warm


def run(bench, report):
    sizes = {"2 MiB layer": 2 << 20, f"{bench.size >> 20} MiB layer": bench.size}
    contenders = {}
    for name, size in sizes.items():
        archive = bench.pack(bench.data.model("bf16", size), "gzip:6")
        warm(archive)

        def once(archive=archive):
            with bench.mount(archive) as mount:
                return mount.seconds + bench.read("first", mount.path)["p50"]
        contenders[name] = once
    timings = interleave(max(5, bench.runs), contenders)
    report.timings(timings, None, unit="ms")
    small, large = (timings.median(name) for name in sizes)
    later = (large - small) * 1e3 if small and large else None
    report.target("the large layer's first byte comes later by", later, "<=", 10, unit="ms")
