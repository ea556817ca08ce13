"""First touches at random places of a large deflated layer, through the mount.

Ours reads the archive that `pack --compression gzip:6` wrote. Peers read the same tar as `pigz -6`
wrote it, with their index already there. No place is read twice in a mount.
"""

from .. import peers
from ..data import Data
from ..environment import tool
from ..measure import interleave, piped
from ..workspace import files, warm


def foreign_layer(bench, kind="bf16"):
    """The model as tar, by pigz -6; kept with the data."""
    model = bench.data.model(kind, bench.size)

    def make(path):
        with open(f"{path}/layer.tar.gz", "wb") as output:
            piped(["tar", "-C", model, "--owner=0", "--group=0", "--mtime=@0", "-cf", "-",
                   next(files([model])).name], [tool("pigz"), "-6", "-c"], output=output)
    return bench.data.made(f"{model.name}-pigz", make) / "layer.tar.gz"


def places(bench, count, block, seed):
    """Offsets in the tar for readers that know no files: as spread as those of the others."""
    import numpy

    random = numpy.random.default_rng(seed)
    cells = random.permutation(bench.size // (1 << 20) - 1)[:count]
    return [int(cell) * (1 << 20) + 4096 * int(random.integers(0, 255)) for cell in cells]


def run(bench, report):
    model = bench.data.model("bf16", bench.size)
    archive = bench.pack(model, "gzip:6")
    layer = foreign_layer(bench)
    warm(archive, layer)
    count = 20 if bench.quick else 100
    indexes = {}

    def index_of(name, build):
        """A peer's index, made once; what that took is shown."""
        if name not in indexes:
            path = bench.space.path(f"{name}.index")
            seconds = build(path)
            report.row(f"{name}: its index, first", f"{seconds:.1f} s")
            indexes[name] = path
        return indexes[name]

    def ratarmount(block, seed):
        import time

        def build(path):
            begun = time.perf_counter()
            with peers.ratarmount(bench, layer, path):
                return time.perf_counter() - begun
        with peers.ratarmount(bench, layer, index_of("ratarmount", build)) as mount:
            return bench.read("random", mount.path, "--count", count, "--block", block,
                              "--seed", seed)["p50"]

    def python(kind, block, seed):
        def build(path):
            return peers.python_reader(kind, layer, path, [], 0)["seconds"]
        index = index_of(kind, build)
        each = peers.python_reader(kind, layer, index, places(bench, count, block, seed), block)
        return each["each"][len(each["each"]) // 2]

    def ours(block, seed, threads=1):
        with bench.mount(archive) as mount:
            return bench.read("random", mount.path, "--count", count, "--block", block,
                              "--seed", seed, "--threads", threads)["p50"]

    for block, name in ((4096, "4 KiB"), (1 << 20, "1 MiB")):
        round_ = iter(range(1, 1_000_000))
        timings = interleave(bench.runs, {
            "through the mount": lambda: ours(block, next(round_)),
            "library": lambda: bench.read("library", archive, "random", "--count", count,
                                          "--block", block, "--seed", next(round_))["p50"],
            "verify and decode one chunk": lambda: bench.read(
                "chunks", archive, "--count", count, "--seed", next(round_))["p50"],
            "ratarmount": lambda: ratarmount(block, next(round_)),
            "indexed_gzip": lambda: python("indexed_gzip", block, next(round_)),
            "rapidgzip": lambda: python("rapidgzip", block, next(round_)),
        })
        report.note(f"{name}, median of one read:")
        report.timings(timings, None, unit="ms")
        if block == 4096:
            report.target("4 KiB beside ratarmount's first touch",
                          timings.ratio("through the mount", "ratarmount"), "<=", 1 / 20)
            report.target("4 KiB beside verifying and decoding one chunk",
                          timings.ratio("through the mount", "verify and decode one chunk"),
                          "<=", 1.5)
