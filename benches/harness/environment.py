"""What is needed to measure: a virtual environment, tools of the distribution, built programs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

# Every one is optional but numpy.
PACKAGES = ["numpy", "indexed_gzip", "rapidgzip", "ratarmount", "safetensors", "onnxruntime"]
TOOLS = {
    "pigz": "pigz",
    "igzip": "isal",
    "zstd": "zstd",
    "mksquashfs": "squashfs-tools",
    "squashfuse": "squashfuse",
    "archivemount": "archivemount",
    "mkfs.erofs": "erofs-utils",
    "time": "time",
}


class Unavailable(Exception):
    """A peer that cannot be measured here, and why."""


def cache():
    """Where data, tools and temporary files live; kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "modeloci-bench"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def enter(root, install):
    """Continues inside the virtual environment, made when it is not there."""
    home = cache() / "venv"
    python = home / "bin" / "python"
    if pathlib.Path(sys.prefix) == home:
        return
    if not python.exists():
        if not install:
            sys.exit("bench: there is no virtual environment yet; run once without --no-install")
        say(f"making {home}")
        home.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    if install:
        have = set(os.listdir(next(home.glob("lib/python*/site-packages"))))
        for package in PACKAGES:
            if package not in have:
                say(f"installing {package}")
                done = subprocess.run([python, "-m", "pip", "install", "-q", package])
                if done.returncode and package == "numpy":
                    sys.exit("bench: numpy cannot be installed; it makes the data")
        install_tools()
    script = root / "scripts" / "bench"
    os.execv(python, [str(python), str(script), *sys.argv[1:]])


def install_tools():
    """With apt, as root; elsewhere what is missing is reported as missing."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if not missing or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"installing {' '.join(missing)}")
    for package in missing:
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if subprocess.run(command, env=environment, **quiet).returncode:
            subprocess.run(["apt-get", "update"], env=environment, **quiet)
            subprocess.run(command, env=environment, **quiet)


def tool(name):
    """The path of a program.

    Raises Unavailable when it is not installed.
    """
    beside = pathlib.Path(sys.prefix) / "bin" / name
    if beside.exists():
        return str(beside)
    found = shutil.which(name)
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def python_module(name):
    """Raises Unavailable when a package is not in the environment."""
    import importlib.util

    if importlib.util.find_spec(name) is None:
        raise Unavailable(f"{name} is not installed")


def build(root):
    """Builds what is measured; paths by target name."""
    say("building (release)")
    paths = {}
    for what in (["build", "--release", "--bins"], ["bench", "--no-run", "--bench", "read",
                                                   "--bench", "yardstick"]):
        command = ["cargo", *what, "--locked", "--message-format=json"]
        done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True)
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable"):
                paths[message["target"]["name"]] = message["executable"]
        if done.returncode:
            sys.exit("bench: the build failed")
    return paths
