"""Second pass through the mount: the kernel's page cache answers, and no request reaches us.

Where in memory the kernel puts a file decides much of how fast it is read again, so every round
reads everything anew: fresh mounts, the original dropped and read again. Then the pages are locked:
some kernels drop file pages that look idle even when memory is free, and such a page is asked for
again.
"""

import contextlib
import mmap

from .. import workspace
from ..environment import Unavailable
from ..measure import Timings, interleave

# Of mmap(2) on Linux; Python does not name it.
MAP_LOCKED = 0x2000


@contextlib.contextmanager
def locked(path):
    """Keeps the content of the files below a directory in memory, read if need be."""
    with contextlib.ExitStack() as maps:
        for file in workspace.files([path]):
            with open(file, "rb") as content:
                flags = mmap.MAP_SHARED | MAP_LOCKED
                maps.enter_context(mmap.mmap(content.fileno(), 0, flags, mmap.PROT_READ))
        yield


def requests(mount):
    """Requests that reached the process, and how many of them asking takes."""
    first, second = mount.status()["requests"], mount.status()["requests"]
    return second, second - first


def one_round(bench, model, archive, ways, timings, number):
    """Adds a round of second passes to `timings`; requests that reached the process in them."""
    workspace.chill(model)
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(bench.mount(archive))
        systems = {"mount": mount.path, "original": model}
        try:
            systems["yardstick"] = stack.enter_context(bench.yardstick(model)).path
        except Unavailable as reason:
            timings.missing["yardstick"] = str(reason)
        # Another one is read first, and so gets the memory that comes first.
        order = list(systems.items())
        first = number % len(order)
        for _, path in order[first:] + order[:first]:
            stack.enter_context(locked(path))
            bench.read("seq", path)
        before, own = requests(mount)
        again = interleave(3, {
            f"{way}, {system}": lambda words=words, path=path:
                bench.seconds(words[0], path, *words[1:])
            for way, words in ways.items() for system, path in order[first:] + order[:first]
        })
        # The answer to the first question of now is not part of the passes.
        grown = requests(mount)[0] - before - 2 * own
    for name in again.rounds:
        timings.rounds.setdefault(name, []).append(again.median(name))
    timings.missing.update(again.missing)
    return grown


def compare(bench, report, kind):
    model = bench.data.model(kind, bench.medium)
    archive = bench.pack(model)
    workspace.warm(archive)
    # Enough reads that starting the reader does not count.
    count, passes = 2000, max(1, (1 << 30) // bench.medium)
    ways = {
        "seq": ["seq"],
        "mmap": ["mmap"],
        "random 4 KiB": ["random", "--count", count, "--passes", 20 * passes],
        "random 1 MiB": ["random", "--count", count, "--block", 1 << 20, "--passes", passes],
    }
    timings = Timings()
    rounds = 1 if bench.quick else max(8, bench.runs)
    grown = [one_round(bench, model, archive, ways, timings, number) for number in range(rounds)]
    report.note(f"{kind}:")
    report.timings(timings, None, unit="ms")
    report.target(f"{kind}: requests that reach the process in all second passes",
                  sum(grown), "<=", 0, unit="requests")
    for way in ("seq", "random 4 KiB", "random 1 MiB"):
        report.target(f"{kind}, {way} beside the original directory",
                      timings.ratio(f"{way}, mount", f"{way}, original"), "<=", 1.15)
        ratio = timings.ratio(f"{way}, yardstick", f"{way}, original")
        report.row(f"{way}: the yardstick beside the original", ratio and f"{ratio:.2f} x")
    report.target(f"{kind}, mmap beside the yardstick",
                  timings.ratio("mmap, mount", "mmap, yardstick"), "<=", 1.05)


def run(bench, report):
    compare(bench, report, "bf16")
    compare(bench, report, "fp32")
