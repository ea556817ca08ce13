"""A layer that other tools wrote (tar, pigz -6): the first pass, and random reads once its seek
table is in the index directory."""

from ..layouts import foreign_archive
from ..measure import interleave, timed
from ..workspace import files, warm
from .random import foreign_layer

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
# Seek points stand about so many bytes of the file apart.
SPAN = 4 << 20


def run(bench, report):
    layer = foreign_layer(bench)
    title = next(files([bench.data.model("bf16", bench.size)])).name
    archive = bench.space.path("foreign.tar")
    foreign_archive(layer, title, MEDIA_TYPE, archive)
    warm(archive, layer)

    def through_the_mount():
        with bench.mount(archive) as mount:
            return bench.seconds("seq", mount.path)
    timings = interleave(bench.runs, {
        "library, first pass": lambda: bench.seconds("library", archive, "seq"),
        "mount, first pass": through_the_mount,
        "sha256sum": lambda: timed(["sha256sum", layer]),
        "zlib-rs, one thread": lambda: bench.seconds("gunzip", layer),
        "gzip -dc": lambda: timed(["gzip", "-dc", layer]),
    })
    report.timings(timings, lambda _: bench.size)
    slower = max(("sha256sum", "zlib-rs, one thread"), key=lambda n: timings.median(n) or 0)
    report.target(f"first pass beside {slower}",
                  timings.ratio("library, first pass", slower), "<=", 1.15)

    index = bench.space.directory("index")
    with bench.mount(archive, index=index) as mount:
        bench.read("seq", mount.path)
    kept = sum(path.stat().st_size for path in files([index]))
    report.row("seek table kept", f"{kept / 1e6:.2f} MB", f"{kept / bench.size * 1e3:.2f} MB/GB")
    count = 20 if bench.quick else 100
    seed = iter(range(1, 1_000_000))

    def second_mount():
        with bench.mount(archive, index=index) as mount:
            return bench.read("random", mount.path, "--count", count, "--seed", next(seed))["p50"]
    timings = interleave(bench.runs, {
        "random 4 KiB, second mount": second_mount,
        "decoding one span (zlib-rs)": lambda:
            bench.seconds("gunzip", layer) * SPAN / bench.size,
    })
    report.timings(timings, None, unit="ms")
    report.target("random 4 KiB beside decoding one span",
                  timings.ratio("random 4 KiB, second mount", "decoding one span (zlib-rs)"),
                  "<=", 3)
