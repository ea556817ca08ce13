"""make_model.py LOADER DIR: makes a small model that LOADER can load, the same on every run.

ONNX and GGUF are written here from their specifications, so that nothing but the loader is needed.
"""

import math
import os
import random
import struct
import sys

loader, directory = sys.argv[1:]
random.seed(7)


def path(name):
    return os.path.join(directory, name)


def floats(count, spread=0.15):
    return struct.pack(f"<{count}f", *(random.gauss(0, spread) for _ in range(count)))


def safetensors():
    import numpy as np
    from safetensors.numpy import save_file

    rng = np.random.default_rng(7)
    for shard in (1, 2):
        save_file(
            {
                f"layer.{shard}.weight": rng.normal(size=(512, 700)).astype(np.float32),
                f"layer.{shard}.half": rng.normal(size=(300, 300)).astype(np.float16),
                f"layer.{shard}.quantized": rng.integers(-128, 128, (257, 63), dtype=np.int8),
                f"layer.{shard}.bias": np.zeros(0, dtype=np.float32),
            },
            path(f"model-{shard:05}-of-00002.safetensors"),
        )
    np.save(path("positions.npy"), rng.normal(size=(1000, 300)))


def torch():
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(7)
    weights = {
        "layer.weight": torch.randn(512, 700),
        "layer.half": torch.randn(300, 300).to(torch.float16),
        "layer.brain": torch.randn(600, 400).to(torch.bfloat16),
        "layer.quantized": torch.randint(-128, 128, (257, 64), dtype=torch.int8),
    }
    save_file(weights, path("model.safetensors"))
    torch.save(weights, path("pytorch_model.bin"))
    with open(path("raw.bin"), "wb") as file:
        file.write(torch.randn(250_000).numpy().tobytes())


def tokenizers():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = ["".join(random.choices("abcdefghijklmnop", k=random.randint(2, 9))) for _ in range(3000)]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.save(path("tokenizer.json"))


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """A field of a protocol buffer: an integer, or bytes or text with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnxruntime():
    """y = relu(x W1) W2, with the weights in a file of their own, which the loader maps."""
    size, float32, external = 512, 1, 1
    weights = b""
    initializers = b""
    for name in ("w1", "w2"):
        weights += bytes(-len(weights) % 65536)
        data = floats(size * size, 0.05)
        entries = {"location": "weights.bin", "offset": len(weights), "length": len(data)}
        tensor = field(1, size) + field(1, size) + field(2, float32) + field(8, name)
        for key, value in entries.items():
            tensor += field(13, field(1, key) + field(2, str(value)))
        initializers += field(5, tensor + field(14, external))
        weights += data

    def node(operator, inputs, output):
        names = b"".join(field(1, name) for name in inputs)
        return field(1, names + field(2, output) + field(4, operator))

    def value(number, name):
        shape = field(1, field(1, 1)) + field(1, field(1, size))
        return field(number, field(1, name) + field(2, field(1, field(1, float32) + field(2, shape))))

    graph = node("MatMul", ["x", "w1"], "a") + node("Relu", ["a"], "b") + node("MatMul", ["b", "w2"], "y")
    graph += field(2, "g") + initializers + value(11, "x") + value(12, "y")
    model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))
    with open(path("model.onnx"), "wb") as file:
        file.write(model)
    with open(path("weights.bin"), "wb") as file:
        file.write(weights)


def llama_cpp():
    """A llama of two blocks with a byte vocabulary, as GGUF version 3."""
    width, heads, blocks, inner = 128, 4, 2, 256
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{n:02X}>" for n in range(256)] + ["\u2581"]
    tokens += [chr(ord("a") + n) for n in range(26)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 27
    u32, i32, f32, text, array = 4, 5, 6, 8, 9

    def string(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def encode(kind, value):
        return string(value) if kind == text else struct.pack({u32: "<I", i32: "<i", f32: "<f"}[kind], value)

    metadata = [
        ("general.architecture", text, "llama"),
        ("llama.context_length", u32, 256),
        ("llama.embedding_length", u32, width),
        ("llama.block_count", u32, blocks),
        ("llama.feed_forward_length", u32, inner),
        ("llama.attention.head_count", u32, heads),
        ("llama.attention.layer_norm_rms_epsilon", f32, 1e-5),
        ("llama.rope.dimension_count", u32, width // heads),
        ("tokenizer.ggml.model", text, "llama"),
        ("tokenizer.ggml.bos_token_id", u32, 1),
        ("tokenizer.ggml.eos_token_id", u32, 2),
        ("tokenizer.ggml.tokens", text, tokens),
        ("tokenizer.ggml.scores", f32, [-float(n) for n in range(len(tokens))]),
        ("tokenizer.ggml.token_type", i32, kinds),
    ]
    tensors = [
        ("token_embd.weight", (width, len(tokens))),
        ("output_norm.weight", (width,)),
        ("output.weight", (width, len(tokens))),
    ]
    for n in range(blocks):
        tensors += [(f"blk.{n}.attn_norm.weight", (width,)), (f"blk.{n}.ffn_norm.weight", (width,))]
        tensors += [(f"blk.{n}.attn_{part}.weight", (width, width)) for part in ("q", "k", "v", "output")]
        tensors += [(f"blk.{n}.ffn_{part}.weight", (width, inner)) for part in ("gate", "up")]
        tensors += [(f"blk.{n}.ffn_down.weight", (inner, width))]

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, kind, value in metadata:
        head += string(key)
        if isinstance(value, list):
            head += struct.pack("<IIQ", array, kind, len(value))
            head += b"".join(encode(kind, item) for item in value)
        else:
            head += struct.pack("<I", kind) + encode(kind, value)
    data = b""
    for name, shape in tensors:
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        count = math.prod(shape)
        data += struct.pack(f"<{count}f", *[1.0] * count) if len(shape) == 1 else floats(count)
        data += bytes(-len(data) % 32)
    head += bytes(-len(head) % 32)
    with open(path("model.gguf"), "wb") as file:
        file.write(head + data)


{
    "safetensors": safetensors,
    "tokenizers": tokenizers,
    "onnxruntime": onnxruntime,
    "llama_cpp": llama_cpp,
    "torch": torch,
}[loader]()
