"""Control groups: a bound on a process's memory, a disk made slow."""

import os
import pathlib

from .environment import Unavailable

V1 = pathlib.Path("/sys/fs/cgroup")


class Group:
    """A control group of this run, removed at the end. `join` is for Popen's preexec_fn."""

    def __init__(self, controller):
        if os.geteuid() != 0:
            raise Unavailable("only root makes control groups")
        unified = V1 / "cgroup.controllers"
        self.unified = unified.exists()
        if self.unified:
            if controller not in unified.read_text().split():
                raise Unavailable(f"no {controller} controller")
            (V1 / "cgroup.subtree_control").write_text(f"+{controller}")
            base = V1
        else:
            base = V1 / {"io": "blkio"}.get(controller, controller)
        if not base.is_dir():
            raise Unavailable(f"no {controller} controller")
        self.path = base / f"modeloci-bench-{os.getpid()}"
        self.path.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Whoever is left goes back to where it came from.
        for pid in (self.path / "cgroup.procs").read_text().split():
            try:
                (self.path.parent / "cgroup.procs").write_text(pid)
            except OSError:
                pass
        self.path.rmdir()

    def add(self, pid):
        """Moves a process into the group."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, size):
        """What the processes may hold, page cache that they read included."""
        name = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self.path / name).write_text(str(size))

    def limit_reads(self, path, rate):
        """Bytes a second from the disk that `path` is on."""
        device = disk(path)
        if self.unified:
            (self.path / "io.max").write_text(f"{device} rbps={rate}")
        else:
            (self.path / "blkio.throttle.read_bps_device").write_text(f"{device} {rate}")


def disk(path):
    """`major:minor` of the whole disk below a file."""
    device = os.stat(path).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    node = pathlib.Path("/sys/dev/block") / name
    if not node.exists():
        raise Unavailable("the files are not on a block device")
    node = node.resolve()
    if (node / "partition").exists():
        node = node.parent
    return (node / "dev").read_text().strip()
