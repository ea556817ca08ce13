"""Peak memory: of `pack`, and of a mount while all of it is read in several ways."""

import subprocess

from ..control import Group
from ..environment import Unavailable, tool
from ..layouts import foreign_archive
from ..workspace import files, warm
from .foreign import MEDIA_TYPE
from .random import foreign_layer

CACHE = 256 << 20
PROMISE = CACHE + (64 << 20)


def peak(command):
    """Most memory that a command held, in bytes. Measured by time(1): a child of this large
    process would begin with its size."""
    command = [tool("time"), "-f", "%M", *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return int(done.stderr.split()[-1]) << 10


def packing(bench, report):
    for kind, compression in (("bf16", "auto"), ("bf16", "gzip:6"), ("fp32", "auto"),
                              ("random", "none"), ("bf16", "zstd:3")):
        size = bench.size if compression in ("auto", "none") else bench.medium
        output = bench.space.path("packed.tar")
        command = bench.pack_command(bench.data.model(kind, size), compression, output,
                                     ["--jobs", "2"])
        name = f"pack {kind} {compression}, {size >> 20} MiB"
        try:
            most = peak(command)
        except (Unavailable, RuntimeError) as error:
            report.row(name, None, str(error))
            most = None
        else:
            report.row(name, f"{most / 2**20:.0f} MiB")
        report.target(f"{name}: memory", most and most / 2**20, "<=", 256, unit="MiB")
        output.unlink(missing_ok=True)


def read_everything(bench, path):
    """As loaders do: in order, mapped, and by eight threads at random."""
    bench.read("random", path, "--threads", 8, "--count", 500, "--block", 1 << 20)
    bench.read("seq", path)
    bench.read("mmap", path)


def reading(bench, report, name, archive):
    """By the process's own count, then with a control group that ends it beyond the promise."""
    warm(archive)
    try:
        with bench.mount(archive) as mount:
            read_everything(bench, mount.path)
            most = mount.peak()
    except RuntimeError as error:
        report.row(f"mount {name}", None, str(error))
        most = None
    else:
        report.row(f"mount {name}", f"{most / 2**20:.0f} MiB")
    report.target(f"mount {name}: memory", most and most / 2**20, "<=", PROMISE >> 20, unit="MiB")
    try:
        with Group("memory") as group:
            group.limit_memory(PROMISE)
            with bench.mount(archive) as mount:
                group.add(mount.process.pid)
                read_everything(bench, mount.path)
                alive = mount.process.poll() is None
        report.row(f"mount {name} in a control group of {PROMISE >> 20} MiB",
                   "survives" if alive else "ENDED")
    except Unavailable as reason:
        report.row(f"mount {name} in a control group", None, str(reason))


def run(bench, report):
    packing(bench, report)
    for kind, compression in (("bf16", "auto"), ("fp32", "auto"), ("bf16", "zstd:3")):
        archive = bench.pack(bench.data.model(kind, bench.size), compression)
        reading(bench, report, f"{kind} {compression}", archive)
        archive.unlink()
    layer = foreign_layer(bench)
    archive = bench.space.path("foreign.tar")
    foreign_archive(layer, next(files([bench.data.model("bf16", bench.size)])).name, MEDIA_TYPE,
                    archive)
    reading(bench, report, "foreign tar+gzip", archive)
