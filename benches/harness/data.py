"""Models to measure with: seeded, so that every machine measures the same bytes.

Weights are what training leaves: normal, each tensor and each row with a scale of its own, then
really converted to the type. They are kept in the cache directory.
"""

import json
import os
import shutil
import tempfile

import numpy as np

TENSOR = 4 << 20  # values
WEIGHTS = ("bf16", "fp16", "fp32", "int8", "q4")
KINDS = (*WEIGHTS, "json", "random")
# bf16 has no numpy type; loaders of numpy read its bits as U16.
SAFETENSORS = {"bf16": ("U16", 2), "fp16": ("F16", 2), "fp32": ("F32", 4), "int8": ("I8", 1),
               "q4": ("U8", 1), "random": ("U8", 1)}


def normal(random, count):
    """Weights of one tensor: rows of 4096 that differ in scale, by more between tensors."""
    values = random.standard_normal(count, dtype=np.float32).reshape(-1, 4096)
    scale = 0.03 * np.exp(0.5 * random.standard_normal())
    rows = np.exp(0.1 * random.standard_normal((len(values), 1), dtype=np.float32))
    return values * (scale * rows).astype(np.float32)


def convert(kind, values):
    """The bytes of a tensor in a type."""
    if kind == "fp32":
        return values.tobytes()
    if kind == "fp16":
        return values.astype(np.float16).tobytes()
    if kind == "bf16":
        bits = values.view(np.uint32)
        # Round to nearest, ties to even, as every framework does.
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        return (rounded >> 16).astype(np.uint16).tobytes()
    if kind == "int8":
        scale = np.abs(values).max(1, keepdims=True) / 127
        return np.rint(values / scale).astype(np.int8).tobytes()
    # q4_0 of GGUF: 32 weights share an fp16 scale, which maps the one of largest magnitude to -8.
    blocks = values.reshape(-1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = largest / -8
    quants = np.clip(np.rint(blocks / np.where(scale == 0, 1, scale)) + 8, 0, 15).astype(np.uint8)
    packed = quants[:, :16] | (quants[:, 16:] << 4)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), packed], 1).tobytes()


def write_weights(file, kind, size, seed):
    """A safetensors file of about `size` bytes."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    dtype, width = SAFETENSORS[kind]
    header, offset, tensors = {}, 0, []
    per_tensor = {"q4": TENSOR * 18 // 32, "random": TENSOR}.get(kind, TENSOR * width)
    while offset < size:
        length = min(per_tensor, (size - offset + 8191) // 8192 * 8192)
        tensors.append(length)
        header[f"model.layers.{len(tensors)}.weight"] = {
            "dtype": dtype, "shape": [length // width],
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for length in tensors:
        if kind == "random":
            file.write(random.bytes(length))
        else:
            count = -(-length * (32 if kind == "q4" else 1) // (18 if kind == "q4" else width))
            count = -(-count // 4096) * 4096
            file.write(convert(kind, normal(random, count))[:length])


def write_json(file, size, seed):
    """A tokenizer: a vocabulary with scores, then merges, over and over with other words."""
    random = np.random.default_rng([seed, KINDS.index("json")])
    letters = np.array(list("etaoinshrdlcumwfgypbvkjxqz"))
    weights = 1 / np.arange(1, 27)
    weights /= weights.sum()
    syllables = ["".join(random.choice(letters, random.integers(1, 4), p=weights))
                 for _ in range(3000)]
    popular = 1 / np.arange(1, 3001) ** 0.8
    popular /= popular.sum()
    written, number = 0, 0
    while written < size:
        picks = random.choice(3000, (20_000, 3), p=popular)
        counts = random.integers(1, 4, 20_000)
        starts = random.random(20_000) < 0.6
        lines = ['{\n  "version": "1.0",\n  "model": {\n    "type": "BPE",\n    "vocab": {']
        words = []
        for pick, count, start in zip(picks, counts, starts):
            parts = [syllables[i] for i in pick[:count]]
            words.append(("\u0120" if start else "") + "".join(parts))
        lines += [f'      "{word}": {number + i},' for i, word in enumerate(words)]
        lines.append('    },\n    "merges": [')
        lines += [f'      "{syllables[a]} {syllables[b]}",' for a, b, _ in picks]
        lines.append("    ]\n  }\n}")
        number += len(words)
        text = "\n".join(lines).encode()[: size - written]
        file.write(text)
        written += len(text)


class Data:
    """Data of a run, made when it is first asked for."""

    def __init__(self, home, seed=1):
        self._home = home / "data"
        self._seed = seed

    def made(self, name, make):
        """A directory that `make(path)` fills: whole or not at all, and only once."""
        path = self._home / f"{name}-{self._seed}"
        if not path.exists():
            work = tempfile.mkdtemp(prefix=".making-", dir=self._home)
            try:
                make(work)
                os.chmod(work, 0o755)
                os.rename(work, path)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return path

    def model(self, kind, size):
        """A directory with one large file."""
        def make(path):
            name = "tokenizer.json" if kind == "json" else "model.safetensors"
            with open(os.path.join(path, name), "wb") as file:
                if kind == "json":
                    write_json(file, size, self._seed)
                else:
                    write_weights(file, kind, size, self._seed)
        return self.made(f"{kind}-{size >> 20}M", make)

    def many(self, count, size, kind="random"):
        """A directory with `count` files of `size` bytes each, 100 in a directory."""
        def make(path):
            random = np.random.default_rng([self._seed, count])
            for number in range(count):
                parent = os.path.join(path, f"part-{number // 100:03}")
                os.makedirs(parent, exist_ok=True)
                if kind == "random":
                    content = random.bytes(size)
                else:
                    values = normal(random, -(-size // 2 // 4096) * 4096)
                    content = convert("bf16", values)[:size]
                with open(os.path.join(parent, f"file-{number:05}.bin"), "wb") as file:
                    file.write(content)
        return self.made(f"{count}x{size}-{kind}", make)
