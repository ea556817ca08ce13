"""load.py LOADER DIR RESULT: loads the model of make_model.py from DIR with its real loader, uses it,
and writes what came out to the file RESULT.
"""

import hashlib
import json
import os
import sys

loader, directory, result = sys.argv[1:]


def path(name):
    return os.path.join(directory, name)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def safetensors():
    import numpy as np
    from safetensors import safe_open

    found = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            with safe_open(path(name), framework="np") as weights:
                for key in sorted(weights.keys()):
                    tensor = weights.get_tensor(key)
                    found[key] = [str(tensor.dtype), tensor.shape, sha256(tensor.tobytes())]
                # Rows from the middle, out of order.
                for key in [key for key in weights.keys() if key.endswith(".weight")]:
                    rows = weights.get_slice(key)
                    found[key + "[]"] = [sha256(rows[at:at + 3].tobytes()) for at in (300, 10, 509)]
    mapped = np.load(path("positions.npy"), mmap_mode="r")
    found["positions"] = [sha256(mapped[::-1].tobytes()), float(mapped[123:456].sum())]
    return found


def tokenizers():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path("tokenizer.json"))
    encoded = tokenizer.encode("abcd mnop paged hidden q")
    return [tokenizer.get_vocab_size(), encoded.ids, encoded.tokens, tokenizer.decode(encoded.ids)]


def onnxruntime():
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path("model.onnx"), options, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 512, dtype=np.float32)[None]
    (y,) = session.run(None, {"x": x})
    assert np.abs(y).max() > 0.1, "the weights are not there"
    return [sha256(y.tobytes()), y[0, :4].tolist()]


def llama_cpp():
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path("model.gguf")
    parameters.n_ctx = 256
    parameters.warmup = False
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    request = {"prompt": "hello", "n_predict": 24, "temperature": 0, "n_probs": 5}
    answer = server.handle_completions(request)["choices"][0]
    tokens = [[token["id"], token["logprob"]] for token in answer["logprobs"]["content"]]
    assert len(tokens) > 4, answer
    return [answer["text"], tokens]


def torch():
    import torch
    from safetensors import safe_open

    def tensors(named):
        return {
            key: [str(tensor.dtype), list(tensor.shape), sha256(tensor.view(torch.uint8).numpy().tobytes())]
            for key, tensor in sorted(named.items())
        }

    # Maps the file, private and writable.
    with safe_open(path("model.safetensors"), framework="pt") as weights:
        found = {"safetensors": tensors({key: weights.get_tensor(key) for key in weights.keys()})}
        rows = weights.get_slice("layer.weight")[300:303]
        found["rows"] = sha256(rows.contiguous().numpy().tobytes())
    # Reads members of a zip file.
    found["checkpoint"] = tensors(torch.load(path("pytorch_model.bin"), map_location="cpu"))
    # Shared mappings of torch are writable: no read-only file system allows them.
    raw = torch.from_file(path("raw.bin"), shared=False, size=250_000, dtype=torch.float32)
    found.update(tensors({"raw": raw}))
    return found


loaders = {
    "safetensors": safetensors,
    "tokenizers": tokenizers,
    "onnxruntime": onnxruntime,
    "llama_cpp": llama_cpp,
    "torch": torch,
}
with open(result, "w") as file:
    json.dump(loaders[loader](), file)
