"""Loads models in processes that have imported their libraries: what is timed is loading."""

import json
import select
import subprocess
import sys

from .environment import Unavailable

# Seconds after which loading is given up.
PATIENCE = 30

# Reads paths, one a line; each is loaded in a fork, so that nothing stays loaded.
PROGRAM = r"""
import json, os, sys, time
import numpy
from safetensors import safe_open
try:
    import onnxruntime
except ImportError:
    onnxruntime = None

def load(directory):
    seen = 0
    for parent, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            path = os.path.join(parent, name)
            if name.endswith(".safetensors"):
                # Maps the file; each tensor is then copied, as a framework does to a device.
                with safe_open(path, framework="numpy") as tensors:
                    for key in tensors.keys():
                        seen += tensors.get_tensor(key).nbytes
            elif name.endswith(".onnx") and onnxruntime:
                options = onnxruntime.SessionOptions()
                onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                seen += os.path.getsize(path)
            else:
                with open(path, "rb") as file:
                    seen += len(file.read())
    return seen

print("ready", flush=True)
for line in sys.stdin:
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            answer = {"bytes": load(json.loads(line))}
        except Exception as error:
            answer = {"error": str(error)[:300]}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.wait()
    print(answer, flush=True)
"""


class Loader:
    """Use with `with`."""

    def __init__(self):
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the loader does not start")
        self._unanswered = 0

    @property
    def pid(self):
        """Of the process that loads."""
        return self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()

    def load(self, directory):
        """Loads everything below a directory.

        Raises Unavailable when that takes too long; the mount must then be taken away, which ends
        the load."""
        while self._unanswered:
            self._process.stdout.readline()
            self._unanswered -= 1
        self._process.stdin.write(json.dumps(str(directory)) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._unanswered += 1
            raise Unavailable(f"not loaded within {PATIENCE} s")
        # A load that dies (of SIGBUS) leaves an empty line.
        answer = json.loads(self._process.stdout.readline().strip() or '{"error": "died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["bytes"]
