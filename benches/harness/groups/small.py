"""10,000 small files: listing, finding, stat and reading them all, cold and warm, beside the
yardstick with every knob on.

`ls -l` asks each file for two extended attributes. The yardstick has none and is asked only once;
how it does when it has some, as the product's mount has, is shown beside.
"""

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
        "yardstick with xattrs": lambda: bench.yardstick(model, "--xattrs", "on"),
    }

    def cold(mount, way):
        def once():
            with mount() as mounted:
                return way(mounted.path)
        return once
    contenders = {f"{name}, {system}": cold(mount, way)
                  for name, way in ways.items() for system, mount in systems.items()
                  if name == "ls -lR" or system != "yardstick with xattrs"}
    compare(report, "cold", ways, interleave(max(3, bench.runs), contenders))

    with (bench.mount(archive) as ours, bench.yardstick(model) as yardstick,
          bench.yardstick(model, "--xattrs", "on") as attributed):
        for way in ways.values():
            for path in (ours.path, yardstick.path, attributed.path):
                way(path)
        contenders = {f"{name}, {system}": lambda way=way, path=path: way(path)
                      for name, way in ways.items()
                      for system, path in (("mount", ours.path), ("yardstick", yardstick.path),
                                           ("original", model))}
        contenders["ls -lR, yardstick with xattrs"] = lambda: ways["ls -lR"](attributed.path)
        compare(report, "warm", ways, interleave(max(5, bench.runs), contenders))


def compare(report, state, ways, timings):
    report.note(f"{state}:")
    report.timings(timings, None, unit="ms")
    for way in ways:
        report.target(f"{state}, {way} beside the yardstick",
                      timings.ratio(f"{way}, mount", f"{way}, yardstick"), "<=", 1.15)
