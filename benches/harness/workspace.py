"""Temporary files, mounts and processes of one run: nothing outlives it."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time


class Workspace:
    """Use with `with`. `clear` removes everything but the directory itself, between groups."""

    def __init__(self, cache):
        self.cache = cache
        (cache / "data").mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=cache))
        shm = pathlib.Path("/dev/shm")
        # Outputs of packing go to memory, so that no disk is measured; a run's own directory.
        self._memory = None
        if shm.is_dir() and os.access(shm, os.W_OK):
            self._memory = pathlib.Path(tempfile.mkdtemp(prefix="modeloci-bench-", dir=shm))
        self._mounts = []
        self._processes = []
        self._number = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.clear()
        shutil.rmtree(self.root, ignore_errors=True)
        if self._memory:
            shutil.rmtree(self._memory, ignore_errors=True)

    def _remove_leftovers(self):
        """Of runs that were killed: their process is gone."""
        for run in self.cache.glob("run-*"):
            process = run.name.split("-")[1]
            if pathlib.Path("/proc", process).exists():
                continue
            for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
                mountpoint = line.split()[1]
                if mountpoint.startswith(f"{run}/"):
                    unmount(mountpoint)
            shutil.rmtree(run, ignore_errors=True)

    def path(self, name="file"):
        """A new path on disk."""
        self._number += 1
        return self.root / f"{self._number}-{name}"

    def directory(self, name="dir"):
        """A new directory on disk."""
        path = self.path(name)
        path.mkdir()
        return path

    def memory_path(self, name, size):
        """A new path in memory when `size` bytes fit easily, on disk otherwise."""
        if self._memory and shutil.disk_usage(self._memory).free > 2 * size:
            self._number += 1
            return self._memory / f"{self._number}-{name}"
        return self.path(name)

    def mounted(self, path):
        """Registers a mount to be undone."""
        self._mounts.append(str(path))

    def started(self, process):
        """Registers a process to be ended."""
        self._processes.append(process)

    def clear(self):
        """Undoes mounts, ends processes, removes files."""
        while self._mounts:
            unmount(self._mounts.pop())
        while self._processes:
            end(self._processes.pop())
        for base in filter(None, (self.root, self._memory)):
            for path in base.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def is_mounted(path):
    """True when something is mounted on exactly this path."""
    wanted = str(path)
    text = pathlib.Path("/proc/self/mounts").read_text()
    return any(line.split()[1] == wanted for line in text.splitlines())


def unmount(path):
    """By whatever means; lazily at last."""
    attempts = (["umount", path], ["fusermount3", "-u", path], ["umount", "-l", path],
                ["fusermount3", "-u", "-z", path])
    for command in attempts:
        if not is_mounted(path):
            return
        if shutil.which(command[0]):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(process):
    """Waits for a process whose mount is gone; ends it when it stays."""
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition, what, process=None, limit=120):
    """Waits for `condition`; fails when `process` ends or `limit` seconds pass before."""
    deadline = time.monotonic() + limit
    while not condition():
        if process is not None and process.poll() not in (None, 0):
            raise RuntimeError(f"{what}: exit {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit} s")
        time.sleep(0.001)


def warm(*paths):
    """Has the kernel keep the content of files."""
    for path in files(paths):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def chill(*paths):
    """Has the kernel forget the content of files."""
    for path in files(paths):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def files(paths):
    """Files, and those below directories."""
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            yield from (entry for entry in sorted(path.rglob("*")) if entry.is_file())
        else:
            yield path
