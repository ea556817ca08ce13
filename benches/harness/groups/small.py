"""10,000 small files: listing, finding, stat and reading them all, cold and warm, beside the
yardstick with every knob on."""

from ..measure import interleave, timed
from ..workspace import warm

COUNT = 10_000


def run(bench, report):
    count = 1000 if bench.quick else COUNT
    model = bench.data.many(count, 4000)
    archive = bench.pack(model)
    warm(archive, model)

    def command(*words):
        return lambda path: timed([*words[:1], *(path if w == "{}" else w for w in words[1:])])
    ways = {
        "ls -lR": command("ls", "-lR", "{}"),
        "find": command("find", "{}", "-type", "f"),
        # Sizes and modes of all, by name.
        "stat": command("find", "{}", "-printf", "%s %m\n"),
        "read all": lambda path: bench.seconds("seq", path),
    }
    systems = {
        "mount": lambda: bench.mount(archive),
        "yardstick": lambda: bench.yardstick(model),
    }

    def cold(mount, way):
        def once():
            with mount() as mounted:
                return way(mounted.path)
        return once
    contenders = {f"{name}, {system}": cold(mount, way)
                  for name, way in ways.items() for system, mount in systems.items()}
    compare(report, "cold", ways, interleave(max(3, bench.runs), contenders))

    with bench.mount(archive) as ours, bench.yardstick(model) as yardstick:
        for way in ways.values():
            way(ours.path), way(yardstick.path)
        contenders = {f"{name}, {system}": lambda way=way, path=path: way(path)
                      for name, way in ways.items()
                      for system, path in (("mount", ours.path), ("yardstick", yardstick.path),
                                           ("original", model))}
        compare(report, "warm", ways, interleave(max(5, bench.runs), contenders))


def compare(report, state, ways, timings):
    report.note(f"{state}:")
    report.timings(timings, None, unit="ms")
    for way in ways:
        report.target(f"{state}, {way} beside the yardstick",
                      timings.ratio(f"{way}, mount", f"{way}, yardstick"), "<=", 1.15)
