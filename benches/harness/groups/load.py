"""From nothing to a loaded model: mount (or unpack), then load with the real loader.

Two models: a real one (scripts/fetch-model minilm: safetensors and a tokenizer) and seeded bf16
weights of the medium size. "Cold" drops archive, image and original from the page cache first.
"""

import os
import shutil
import statistics
import subprocess
import tarfile
import time

from .. import peers
from ..environment import Unavailable
from ..layouts import foreign_archive
from ..loader import Loader
from ..measure import interleave, processor_time, timed
from ..workspace import chill, files, wait_until, warm
from .foreign import MEDIA_TYPE


def real_model(bench):
    """The directory that scripts/fetch-model prints."""
    script = bench.root / "scripts" / "fetch-model"
    if not script.exists():
        raise Unavailable("there is no scripts/fetch-model")
    done = subprocess.run([script, "minilm"], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"fetch-model failed: {done.stderr.strip()[-200:]}")
    return done.stdout.strip().splitlines()[-1]


def ways(bench, loader, model, work):
    """Each way to get a model loaded: what to drop for a cold start, and a function that does it
    and returns its seconds. The list `work` gets the processor time that each load through our mount
    of the default archive took."""
    def timed_load(mount, work=None):
        """Mounting is part of it, unmounting is not."""
        def once():
            before = processor_time(loader.pid)
            begun = time.perf_counter()
            with mount() as mounted:
                loader.load(mounted.path)
                seconds = time.perf_counter() - begun
                if work is not None:
                    work.append(processor_time(loader.pid, mounted.process.pid) - before)
                return seconds
        return once

    def original():
        begun = time.perf_counter()
        loader.load(model)
        return time.perf_counter() - begun

    def unpacked(archive):
        def once():
            output = bench.space.path("unpacked")
            begun = time.perf_counter()
            timed([bench.modeloci, "unpack", archive, output])
            loader.load(output)
            seconds = time.perf_counter() - begun
            shutil.rmtree(output)
            return seconds
        return once
    yield "the original directory", [model], original
    for compression in ("auto", "gzip:6", "zstd:3"):
        archive = bench.pack(model, compression, bench.space.path(f"{compression}.tar"))
        ours = timed_load(lambda a=archive: bench.mount(a), work if compression == "auto" else None)
        yield f"mount, {compression}", [archive], ours
        if compression == "auto":
            yield ("mount, auto, --prefetch", [archive],
                   timed_load(lambda a=archive: bench.mount(a, "--prefetch")))
            yield ("mount, auto, prefetched before", [archive],
                   lambda a=archive: load_prefetched(bench, loader, a))
            yield "unpack, then load", [archive], unpacked(archive)
    layer = bench.space.path("model.tar.gz")
    with tarfile.open(layer, "w:gz", compresslevel=6) as file:
        for path in files([model]):
            file.add(path, str(path.relative_to(model)))
    yield from foreign(bench, timed_load, model)
    index = bench.space.path("ratarmount.index")
    yield ("ratarmount, tar.gz", [layer],
           timed_load(lambda: peers.ratarmount(bench, layer, index)))
    yield ("archivemount, tar.gz", [layer],
           timed_load(lambda: peers.archivemount(bench, layer)))
    yield from images(bench, timed_load, model)


def load_prefetched(bench, loader, archive):
    """What loading takes when the mount had the time to prefetch: while the server imported its
    libraries, for instance."""
    with bench.mount(archive, "--prefetch") as mount:
        def done():
            status = mount.status()
            return status["prefetched_bytes"] >= status["total_bytes"]
        wait_until(done, "prefetch", mount.process)
        begun = time.perf_counter()
        loader.load(mount.path)
        return time.perf_counter() - begun


def foreign(bench, timed_load, model):
    """The largest file as a layer of another tool; without and with its seek table kept."""
    largest = max(files([model]), key=lambda path: path.stat().st_size)
    layer, archive = bench.space.path("largest.tar.gz"), bench.space.path("foreign.tar")
    with tarfile.open(layer, "w:gz", compresslevel=6) as file:
        file.add(largest, largest.name)
    foreign_archive(layer, largest.name, MEDIA_TYPE, archive)
    index = bench.space.directory("index")
    yield ("mount, foreign tar+gzip", [archive], timed_load(lambda: bench.mount(archive)))
    yield ("mount, foreign tar+gzip, seek table kept", [archive],
           timed_load(lambda: bench.mount(archive, index=index)))


def images(bench, timed_load, model):
    """SquashFS and EROFS: made by the tools, mounted by the kernel or squashfuse."""
    def missing(reason):
        def once():
            raise Unavailable(reason)
        return once
    try:
        image = peers.squashfs_image(bench, model, "-comp", "zstd")
    except Unavailable as reason:
        yield "SquashFS", [], missing(str(reason))
    else:
        yield ("squashfuse, zstd", [image], timed_load(lambda: peers.squashfuse(bench, image)))
        yield ("kernel SquashFS, zstd", [image],
               timed_load(lambda: peers.Kernel(bench, image, "squashfs")))
    try:
        erofs = peers.erofs_image(bench, model)
    except Unavailable as reason:
        yield "EROFS", [], missing(str(reason))
    else:
        yield ("kernel EROFS, plain", [erofs],
               timed_load(lambda: peers.Kernel(bench, erofs, "erofs")))


def compare(bench, report, loader, name, model):
    work = []
    options = list(ways(bench, loader, model, work))
    for state, prepare in (("cold", chill), ("warm", warm)):
        def contender(paths, once, prepare=prepare):
            def run():
                prepare(*paths)
                return once()
            return run
        work.clear()
        timings = interleave(bench.runs, {
            label: contender(paths, once) for label, paths, once in options
        })
        report.note(f"{name}, {state}:")
        report.timings(timings, None, unit="ms")
        if work:
            least = statistics.median(work) / os.cpu_count()
            report.row("mount, auto, if no processor ever rested", f"{least * 1e3:,.0f} ms",
                       "its processor time, on all processors")
        ours = "mount, auto"
        if state == "cold":
            report.target(f"{name}, cold: beside the original directory",
                          timings.ratio(ours, "the original directory"), "<=", 1.15)
        report.target(f"{name}, {state}: beside unpacking first",
                      timings.ratio(ours, "unpack, then load"), "<=", 0.5)
        others = [label for label, _, _ in options if not label.startswith(("mount", "the orig"))]
        for peer in others:
            if timings.median(peer) and peer != "unpack, then load":
                report.target(f"{name}, {state}: beside {peer}", timings.ratio(ours, peer), "<=", 1)


def run(bench, report):
    with Loader() as loader:
        try:
            compare(bench, report, loader, "minilm", real_model(bench))
        except Unavailable as reason:
            report.row("minilm", None, str(reason))
        bench.space.clear()
        size = min(bench.size, 256 << 20)
        compare(bench, report, loader, f"bf16 {size >> 20} MiB", bench.data.model("bf16", size))
