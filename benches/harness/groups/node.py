"""What a node has: a disk of 500 MB/s, and less memory than the model is large.

Nothing is in the page cache before. All of it, server and loader, is in one control group with half
of the model's size as its memory, and with limits on what it reads and writes. What is unpacked is
synced before it is loaded: a control group of version 1 does not count what the kernel writes by
itself later, and a node that unpacks is not done before.
"""

import os
import shutil
import time

from ..control import Group
from ..environment import Unavailable
from ..loader import Loader
from ..measure import interleave, timed
from ..workspace import chill, files

DISK = 500_000_000
# What the programs themselves take, python and its libraries first of all.
LEAST_MEMORY = 512 << 20


def sync(directory):
    """Has everything below a directory on the disk."""
    for path in files([directory]):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def ways(bench, loader, model, archive):
    """Each way to get the model loaded, by name: a function that returns its seconds."""
    def begin():
        chill(model, archive)
        return time.perf_counter()

    def plain():
        begun = begin()
        loader.load(model)
        return time.perf_counter() - begun

    def mounted(*options):
        def once():
            begun = begin()
            with bench.mount(archive, *options) as mount:
                loader.load(mount.path)
                return time.perf_counter() - begun
        return once

    def unpacked():
        output = bench.space.path("unpacked")
        begun = begin()
        timed([bench.modeloci, "unpack", archive, output])
        sync(output)
        # The node may have done this long ago; here it has not.
        loader.load(output)
        seconds = time.perf_counter() - begun
        shutil.rmtree(output)
        return seconds
    return {
        "plain directory": plain,
        "mount": mounted(),
        "mount, --prefetch": mounted("--prefetch"),
        "unpack, then load": unpacked,
    }


def run(bench, report):
    model = bench.data.model("bf16", bench.size)
    memory = max(bench.size // 2, LEAST_MEMORY)
    if memory >= bench.size:
        raise Unavailable(f"needs a --size of more than {LEAST_MEMORY >> 20} MiB")
    archive = bench.pack(model, "auto", bench.space.path("model.tar"))
    with Group("memory", "io") as group:
        group.limit_memory(memory)
        group.limit_reads(archive, DISK)
        group.limit_writes(archive, DISK)
        # Server and loader are started from here, so they are all in the group.
        group.add(os.getpid())
        with Loader() as loader:
            timings = interleave(bench.runs, ways(bench, loader, model, archive))
    report.note(f"{bench.size >> 20} MiB of bf16 in {memory >> 20} MiB of memory, "
                f"a disk of {DISK // 1_000_000} MB/s, archive by auto:")
    report.timings(timings, lambda _: bench.size, unit="s")
    for other in ("plain directory", "unpack, then load"):
        for ours in ("mount", "mount, --prefetch"):
            ratio = timings.ratio(other, ours)
            report.row(f"{ours}, beside {other}", ratio and f"{ratio:.2f} x")
