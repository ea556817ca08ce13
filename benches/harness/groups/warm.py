"""Second pass through the mount: the kernel's page cache answers, and no request reaches us."""

from .. import workspace
from ..environment import Unavailable
from ..measure import interleave


def requests(mount):
    """Requests that reached the process, those of asking left out."""
    first, second = mount.status()["requests"], mount.status()["requests"]
    return second, second - first


def compare(bench, report, kind):
    model = bench.data.model(kind, bench.medium)
    archive = bench.pack(model)
    workspace.warm(archive, model)
    # Enough reads that starting the reader does not count.
    count, passes = 2000, max(1, (1 << 30) // bench.medium)
    try:
        yard = bench.yardstick(model)
    except Unavailable as reason:
        report.row("yardstick", None, str(reason))
        yard = None
    with bench.mount(archive) as mount:
        systems = {"mount": mount.path, "original": model}
        if yard:
            systems["yardstick"] = yard.path
        ways = {
            "seq": ["seq"],
            "mmap": ["mmap"],
            "random 4 KiB": ["random", "--count", count, "--passes", 20 * passes],
            "random 1 MiB": ["random", "--count", count, "--block", 1 << 20, "--passes", passes],
        }
        for path in systems.values():
            bench.read("seq", path)
        try:
            before, _ = requests(mount)
        except Unavailable as reason:
            report.row("requests in a warm pass", None, str(reason))
            before = None
        contenders = {
            f"{way}, {system}": lambda words=words, path=path:
                bench.seconds(words[0], path, *words[1:])
            for way, words in ways.items() for system, path in systems.items()
        }
        timings = interleave(max(5, bench.runs), contenders)
        if before is not None:
            after, own = requests(mount)
            # The answer to the first question of now is not part of the passes.
            grown = after - before - 2 * own
            report.target(f"{kind}: requests that reach the process in warm passes",
                          grown, "<=", 0, unit="requests")
    report.note(f"{kind}:")
    report.timings(timings, None, unit="ms")
    for way in ("seq", "random 4 KiB", "random 1 MiB"):
        report.target(f"{kind}, {way} beside the original directory",
                      timings.ratio(f"{way}, mount", f"{way}, original"), "<=", 1.15)
    report.target(f"{kind}, mmap beside the yardstick",
                  timings.ratio("mmap, mount", "mmap, yardstick"), "<=", 1.05)
    if yard:
        yard.__exit__()


def run(bench, report):
    compare(bench, report, "bf16")
    compare(bench, report, "fp32")
