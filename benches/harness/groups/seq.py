"""Sequential reads of a whole archive through the library, verified, beside the usual decoders of
the same data compressed by each, and beside the digest alone."""

from ..environment import tool
from ..measure import interleave, timed
from ..workspace import files, warm


def compressed(bench, model):
    """The model's file by each tool; made once, kept with the data."""
    source = next(files([model]))
    commands = {"gzip": ["gzip", "-6", "-c"], "igzip": ["igzip", "-c"],
                "zstd": ["zstd", "-q", "-1", "-c"]}
    made = {}
    for name, command in commands.items():
        def make(path, name=name, command=command):
            with open(f"{path}/file", "wb") as output:
                timed([tool(command[0]), *command[1:], source], stdout=output)
        made[name] = lambda name=name, make=make: \
            bench.data.made(f"{model.name}-{name}", make) / "file"
    return made


def compare(bench, report, kind, size):
    model = bench.data.model(kind, size)
    archive = bench.pack(model)
    peers = compressed(bench, model)

    def decode(name, *command):
        def once():
            return timed([tool(command[0]), *command[1:], peers[name]()])
        return once
    warm(archive)
    contenders = {
        "library": lambda: bench.seconds("library", archive, "seq"),
        "zstd -dc": decode("zstd", "zstd", "-q", "-dc"),
        "igzip -dc": decode("igzip", "igzip", "-dc"),
        "gzip -dc": decode("gzip", "gzip", "-dc"),
    }
    timings = interleave(bench.runs, contenders)
    amount = next(files([model])).stat().st_size
    report.note(f"{kind}, size {archive.stat().st_size / amount:.3f}:")
    report.timings(timings, lambda _: amount)
    return lambda peer: timings.ratio(peer, "library")


def run(bench, report):
    size = bench.medium
    bf16 = compare(bench, report, "bf16", size)
    report.target("bf16 by auto beside gzip -dc", bf16("gzip -dc"), ">=", 9)
    report.target("bf16 by auto beside igzip -dc", bf16("igzip -dc"), ">=", 4)
    report.target("bf16 by auto beside zstd -dc", bf16("zstd -dc"), ">=", 1.2)
    # Less takes so little time that starting a process counts.
    json = compare(bench, report, "json", min(size, 512 << 20))
    report.target("JSON beside igzip -dc", json("igzip -dc"), ">=", 1.7)

    model = bench.data.model("fp32", size)
    original = next(files([model]))
    archive = bench.pack(model)
    warm(archive, original)
    timings = interleave(max(3, bench.runs), {
        "library": lambda: bench.seconds("library", archive, "seq"),
        "BLAKE3 of the file, 2 threads": lambda: bench.seconds("blake3", original),
        "BLAKE3 of memory, 2 threads": lambda: bench.seconds("blake3", original, "--memory", "on"),
        "sha256sum": lambda: timed(["sha256sum", original]),
    })
    amount = original.stat().st_size
    report.note(f"stored (fp32), size {archive.stat().st_size / amount:.3f}:")
    report.timings(timings, lambda _: amount)
    report.target("stored beside BLAKE3 of the file on 2 threads",
                  timings.ratio("BLAKE3 of the file, 2 threads", "library"), ">=", 0.8)
    report.target("stored beside sha256sum", timings.ratio("sha256sum", "library"), ">=", 3)
