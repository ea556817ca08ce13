"""What one would use instead, mounted or called. Each raises Unavailable where it does not run."""

import json
import os
import subprocess

from .bench import Mount
from .environment import Unavailable, python_module, tool
from .measure import timed
from .workspace import is_mounted


class Server(Mount):
    """A FUSE program that stays in the foreground."""

    def __init__(self, bench, command):
        super().__init__(bench)
        if not os.path.exists("/dev/fuse"):
            raise Unavailable("no /dev/fuse")
        self.start([*command, self.path], lambda _: is_mounted(self.path))


def ratarmount(bench, archive, index):
    """With its index in a file: made by the first mount, used by later ones. Two threads, as we."""
    return Server(bench, [tool("ratarmount"), "-f", "--index-file", index, "-P", "2", archive])


def archivemount(bench, archive):
    return Server(bench, [tool("archivemount"), "-f", "-o", "readonly", archive])


def squashfuse(bench, image):
    return Server(bench, [tool("squashfuse"), "-f", image])


class Kernel(Mount):
    """A file system of the kernel's on a loop device."""

    def __init__(self, bench, image, kind):
        super().__init__(bench)
        if os.geteuid() != 0:
            raise Unavailable("only root mounts images")
        command = ["mount", "-t", kind, "-o", "loop,ro", str(image), str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"the kernel does not mount {kind}: {done.stderr.strip()[-120:]}")
        bench.space.mounted(self.path)


def squashfs_image(bench, directory, *options):
    """gzip by default, as squashfs has it; with `-comp zstd` and such otherwise."""
    image = bench.space.path("image.squashfs")
    timed([tool("mksquashfs"), directory, image, "-noappend", "-quiet", "-no-progress", *options])
    return image


def erofs_image(bench, directory, *options):
    """Plain unless options say otherwise."""
    image = bench.space.path("image.erofs")
    timed([tool("mkfs.erofs"), *options, image, directory])
    return image


# A program of its own, so that nothing of one reader is warm for the next.
READER = r"""
import json, sys, time
kind, archive, index, places, block = sys.argv[1:6]
places = json.loads(places)
if kind == "rapidgzip":
    import rapidgzip
    file = rapidgzip.open(archive, parallelization=2)
    if places: file.import_index(index)
else:
    import indexed_gzip
    file = indexed_gzip.IndexedGzipFile(archive, index_file=index if places else None)
begun = time.perf_counter()
each = []
if not places:
    if kind == "rapidgzip":
        while file.read(1 << 20): pass
    else:
        file.build_full_index()
    file.export_index(index)
for place in places:
    start = time.perf_counter()
    file.seek(place)
    data = file.read(int(block))
    each.append(time.perf_counter() - start)
    assert len(data) == int(block)
seconds = time.perf_counter() - begun
file.close()
print(json.dumps({"seconds": seconds, "each": sorted(each)}))
"""


def python_reader(kind, archive, index, places, block):
    """Runs `kind` on a gzip file: builds its index when there are no places, reads at them
    otherwise. What it took, and each read, sorted."""
    import sys

    python_module(kind)
    command = [sys.executable, "-c", READER, kind, str(archive), str(index), json.dumps(places),
               str(block)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-200:])
    return json.loads(done.stdout)
