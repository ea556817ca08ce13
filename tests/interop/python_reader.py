"""python_reader.py MODE LAYER...: extracts layers below the working directory.

MODE is one of tarfile's, or zlib: its decompressor, member by member.
"""

import io
import sys
import tarfile
import zlib


def decompress(data):
    out = b""
    while data:
        # 16: a gzip header and trailer.
        decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        out += decoder.decompress(data) + decoder.flush()
        assert decoder.eof, "truncated"
        data = decoder.unused_data
    return out


mode = sys.argv[1]
options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
for layer in sys.argv[2:]:
    with open(layer, "rb") as file:
        source = io.BytesIO(decompress(file.read())) if mode == "zlib" else file
        with tarfile.open(fileobj=source, mode="r:" if mode == "zlib" else mode) as archive:
            members = 0
            for member in archive:
                archive.extract(member, **options)
                members += 1
            assert members == 1, f"{layer}: {members} members"
