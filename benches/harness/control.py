"""Control groups: a bound on a process's memory, a disk made slow."""

import os
import pathlib

from .environment import Unavailable

V1 = pathlib.Path("/sys/fs/cgroup")


class Group:
    """A control group of this run, removed at the end, that has these controllers: "memory", "io"."""

    def __init__(self, *controllers):
        if os.geteuid() != 0:
            raise Unavailable("only root makes control groups")
        unified = V1 / "cgroup.controllers"
        self.unified = unified.exists()
        missing = [name for name in controllers if not self._has(name)]
        if missing:
            raise Unavailable(f"no {missing[0]} controller")
        if self.unified:
            for name in controllers:
                (V1 / "cgroup.subtree_control").write_text(f"+{name}")
        # A directory for all of them, or in version 1 one for each.
        self._paths = {name: self._base(name) / f"modeloci-bench-{os.getpid()}"
                       for name in controllers}
        for path in set(self._paths.values()):
            path.mkdir()

    def _has(self, controller):
        if self.unified:
            return controller in (V1 / "cgroup.controllers").read_text().split()
        return self._base(controller).is_dir()

    def _base(self, controller):
        return V1 if self.unified else V1 / {"io": "blkio"}.get(controller, controller)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for path in set(self._paths.values()):
            # Whoever is left goes back to where it came from.
            for pid in (path / "cgroup.procs").read_text().split():
                try:
                    (path.parent / "cgroup.procs").write_text(pid)
                except OSError:
                    pass
            path.rmdir()

    def add(self, pid):
        """Moves a process into the group."""
        for path in set(self._paths.values()):
            (path / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, size):
        """What the processes may hold, page cache that they read included."""
        name = "memory.max" if self.unified else "memory.limit_in_bytes"
        (self._paths["memory"] / name).write_text(str(size))

    def limit_reads(self, path, rate):
        """Bytes a second from the disk that `path` is on."""
        self._limit(path, "rbps", "read", rate)

    def limit_writes(self, path, rate):
        """Bytes a second to that disk. In version 1 only what is synced by who wrote it counts: what
        the kernel writes by itself later is in no group."""
        self._limit(path, "wbps", "write", rate)

    def _limit(self, path, key, direction, rate):
        device = disk(path)
        if self.unified:
            (self._paths["io"] / "io.max").write_text(f"{device} {key}={rate}")
        else:
            name = f"blkio.throttle.{direction}_bps_device"
            (self._paths["io"] / name).write_text(f"{device} {rate}")


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
