"""Until `modeloci mount` returns, for 200 layers of 10 KB and of 10 MB each."""

from ..measure import interleave
from ..workspace import warm


def run(bench, report):
    each = max(bench.size // 200 // 4096 * 4096, 64 << 10)
    sizes = {"200 layers of 10 KB": 10_000, f"200 layers of {each / 1e6:.1f} MB": each}
    contenders = {}
    for name, size in sizes.items():
        archive = bench.pack(bench.data.many(200, size))
        warm(archive)
        contenders[name] = lambda archive=archive: bench.mount_seconds(archive)
    timings = interleave(max(7, bench.runs), contenders)
    report.timings(timings, None, unit="ms")
    small, large = sizes
    report.target("large layers beside small ones", timings.ratio(large, small), "<=", 1.5)
    seconds = timings.median(large)
    report.target("large layers answer within", seconds and seconds * 1e3, "<=", 50, unit="ms")
