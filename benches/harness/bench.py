"""What the groups share: the programs, archives and mounts of the product, and the reader."""

import json
import os
import pathlib
import re
import subprocess
import time

from . import environment, workspace
from .data import Data
from .environment import Unavailable
from .measure import timed


class Bench:
    """One run: sizes, programs, data."""

    def __init__(self, root, args, space):
        self.root = root
        self.runs = args.runs
        self.quick = args.quick
        self.size = args.size
        # Rates do not depend on more data than this.
        self.medium = min(args.size, 512 << 20)
        # For peers that need a minute for a gigabyte; only their rate is used.
        self.small = min(args.size, (16 if args.quick else 64) << 20)
        self.space = space
        self.data = Data(space.cache)
        built = environment.build(root)
        self.modeloci = str(args.binary.resolve()) if args.binary else built["modeloci"]
        self.beside = str(args.beside.resolve()) if args.beside else None
        self._read = built["read"]
        self._yardstick = built["yardstick"]

    def describe(self):
        size = f"layers of {self.size >> 20} MiB, {self.runs} rounds"
        return f"{size}, {os.cpu_count()} cores, Linux {os.uname().release}"

    # Programs

    def read(self, *words):
        """Runs the reading program; what it reports."""
        command = [self._read, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"read {' '.join(command[1:3])}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def seconds(self, *words):
        """What the reading program took for the whole."""
        return self.read(*words)["seconds"]

    def pack(self, model, compression="auto", output=None, extra=()):
        """Packs a directory; the archive."""
        output = output or self.space.path("packed.tar")
        timed(self.pack_command(model, compression, output, extra))
        return output

    def pack_command(self, model, compression, output, extra=()):
        return [self.modeloci, "pack", "--model-dir", model, "--name", "bench", "--version", "1",
                "--compression", compression, "--output", output, "--force", *extra]

    # Mounts

    def mount(self, archive, *options, index=None, environment_of=None):
        """Mounts an archive in a process that stays below this one."""
        return Ours(self, archive, options, index, environment_of)

    def mount_seconds(self, archive, index=None):
        """What `modeloci mount` takes until it returns; unmounts again."""
        mountpoint = self.space.directory("mount")
        self.space.mounted(mountpoint)
        seconds = timed([self.modeloci, "mount", archive, mountpoint, *index_option(index)])
        timed([self.modeloci, "umount", mountpoint])
        return seconds

    def yardstick(self, directory, *options):
        """Mounts a directory's bytes from memory."""
        return Yardstick(self, directory, options)


def index_option(index):
    return ["--index-dir", index] if index else ["--no-index"]


class Mount:
    """A mount, used with `with`: `path` is the mount point."""

    def __init__(self, bench):
        self.bench = bench
        self.path = bench.space.directory("mount")
        self.process = None

    def start(self, command, is_ready, **options):
        """Starts a server and waits until the mount answers."""
        self.bench.space.mounted(self.path)
        log = open(self.bench.space.path("log"), "w+")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, **options)
        self.bench.space.started(self.process)
        try:
            workspace.wait_until(lambda: is_ready(log), command[0], self.process)
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}: {log.read().strip()[-300:]}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        workspace.unmount(str(self.path))
        if self.process:
            workspace.end(self.process)

    def file(self, name=None):
        """The largest file below, or one by name."""
        if name:
            return self.path / name
        found = [path for path in workspace.files([self.path])]
        return max(found, key=lambda path: path.stat().st_size)


class Ours(Mount):
    """`modeloci mount --foreground`."""

    def __init__(self, bench, archive, options, index, environment_of):
        super().__init__(bench)
        ready, write = os.pipe()
        command = [bench.modeloci, "mount", archive, self.path, "--foreground", "--ready-fd",
                   str(write), *index_option(index), *options]
        begun = time.perf_counter()
        self.bench.space.mounted(self.path)
        errors = open(bench.space.path("log"), "w+")
        self.process = subprocess.Popen(
            [str(word) for word in command], stderr=errors, pass_fds=[write],
            env={**os.environ, **(environment_of or {})})
        bench.space.started(self.process)
        os.close(write)
        with os.fdopen(ready, "rb", buffering=0) as pipe:
            answered = pipe.read(1)
        self.seconds = time.perf_counter() - begun
        if not answered:
            self.process.wait()
            errors.seek(0)
            raise RuntimeError(f"mount failed: {errors.read().strip()[-300:]}")

    def peak(self):
        """Most memory that the process held so far, in bytes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) << 10

    def status(self):
        """The counters of the mount."""
        command = [self.bench.modeloci, "status", self.path, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"status failed: {done.stderr.strip()[-200:]}")
        return json.loads(done.stdout)


class Yardstick(Mount):
    """benches/yardstick.rs."""

    def __init__(self, bench, directory, options):
        super().__init__(bench)
        if os.geteuid() != 0:
            raise Unavailable("the yardstick mounts as root")

        def ready(log):
            log.seek(0)
            return log.read().startswith("ready")
        self.start([bench._yardstick, directory, self.path, *options], ready)
