#!/usr/bin/env python3
"""A second implementation of docs/layer-format.md, written from that page alone.

usage: layer_reader.py ARCHIVE [OUTDIR]

Reads every file of ARCHIVE chunk by chunk through its chunk tables, with nothing but zlib and
hashlib (and the zstd program for zstd frames), and compares with what a plain reader of gzip, zstd
and tar finds. Prints one JSON object: path -> SHA-256 and the kinds of its chunks. Exits 1 with a message
at the first disagreement. Chunk digests in BLAKE3 are checked when the blake3 package is there,
those in SHA-256 always.
"""

import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib

try:
    from blake3 import blake3
except ImportError:
    blake3 = None


def need(condition, message):
    if not condition:
        sys.exit(f"layer_reader: {message}")


def digest(algorithm, data):
    if algorithm == 1:
        return hashlib.sha256(data).digest()
    return blake3(data).digest() if blake3 else None


def inflate(segment):
    """A segment and `03 00` are a complete deflate stream."""
    decoder = zlib.decompressobj(-15)
    out = decoder.decompress(segment + b"\x03\x00")
    need(decoder.eof and not decoder.unused_data, "a segment ends before its bytes do")
    return out


def zstd(frames):
    done = subprocess.run(["zstd", "-qdc"], input=frames, capture_output=True)
    need(done.returncode == 0, f"zstd: {done.stderr.decode()}")
    return done.stdout


def gzip_members(blob):
    """The table by way of the footer: (data_size, range length, table bytes)."""
    footer = blob[-42:]
    need(footer[:16] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + b"\x14\x00MF\x10\x00",
         "no footer")
    need(footer[32:] == b"\x03" + bytes(9), "footer does not end a member")
    start, length = struct.unpack("<QQ", footer[16:32])
    need(start + length + 42 == len(blob), "footer points elsewhere")
    members, table = blob[start:start + length], b""
    while members:
        need(members[:10] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff", "a table member has another header")
        xlen, tag, size = struct.unpack("<H2sH", members[10:16])
        need(tag == b"MT" and xlen == size + 4 and size <= 7900, "a table member is malformed")
        table += members[16:16 + size]
        need(members[16 + size:26 + size] == b"\x03" + bytes(9), "a table member is not empty")
        members = members[26 + size:]
    return start, length, table


def zstd_frames(blob):
    """As gzip_members."""
    footer = blob[-24:]
    need(footer[:8] == b"\x5e\x2a\x4d\x18\x10\0\0\0", "no footer")
    start, length = struct.unpack("<QQ", footer[8:])
    need(start + length + 24 == len(blob), "footer points elsewhere")
    frames, table = blob[start:start + length], b""
    while frames:
        magic, size = struct.unpack("<4sI", frames[:8])
        need(magic == b"\x50\x2a\x4d\x18" and size <= 1 << 20, "a table frame is malformed")
        need(len(frames) >= 8 + size, "a table frame is cut off")
        table += frames[8:8 + size]
        frames = frames[8 + size:]
    return start, length, table


# Framing: its number in the table, where the first segment begins, the bytes of the data behind the
# last one, the kinds of its segments, one segment's decoder, and a plain reader of the whole blob.
FRAMINGS = {
    "tar+gzip": (0, 10, 10, (0, 1, 2), inflate, gzip.decompress),
    "tar+zstd": (1, 0, 0, (3,), zstd, zstd),
    "tar": (2, 0, 0, (4,), bytes, bytes),
}


def read_layer(descriptor, blob, blobs):
    notes = descriptor["annotations"]
    packaging = descriptor["mediaType"].removeprefix("application/vnd.oci.image.layer.v1.")
    number, begin, trailer, kinds, decode, plain_reader = FRAMINGS[packaging]
    if packaging == "tar":
        start, table = len(blob), blobs(notes["io.modeloci.chunks"])
        need("io.modeloci.chunks.range" not in notes, "a plain layer has a range")
    else:
        members = gzip_members if packaging == "tar+gzip" else zstd_frames
        start, length, table = members(blob)
        need(notes["io.modeloci.chunks.range"] == f"{start}+{length}", "the range annotation differs")
    need(notes["io.modeloci.chunks"] == "sha256:" + hashlib.sha256(table).hexdigest(),
         "the manifest pins another table")

    magic, version, algorithm, framing, chunk_size = struct.unpack("<8sHBBI", table[:16])
    file_size, file_offset, tar_size, data_size, rows = struct.unpack("<5Q", table[16:56])
    need((magic, version, framing) == (b"modeloci", 1, number), "not a table of this framing")
    need(file_size == int(notes["io.modeloci.file.size"]), "the file sizes differ")
    need(rows == -(-file_size // chunk_size) + 2 and len(table) == 104 + 72 * rows, "row count")
    need(data_size == start and table[56:72] == bytes(16), "header fields")
    need(hashlib.sha256(blob[:data_size]).digest() == table[72:104], "the data's digest differs")

    at, segments, chunk_kinds = begin, [], set()
    for number in range(rows):
        row = table[104 + 72 * number:104 + 72 * (number + 1)]
        offset, size, kind = struct.unpack("<QIB", row[:13])
        subs = struct.unpack("<5I", row[20:40])
        need(offset == at and row[13:20] == bytes(7), f"row {number} is not where it should be")
        need(kind in kinds, f"segment {number} is of another framing's kind")
        compressed = blob[offset:offset + size]
        found = digest(algorithm, compressed)
        need(found is None or found == row[40:72], f"the digest of segment {number} differs")
        plain = decode(compressed)
        if kind == 1:
            bounds = [0, *subs, size]
            for a, b in zip(bounds, bounds[1:]):
                # A dynamic block that is not the last, and the empty stored block behind it.
                need(a < b and compressed[a] & 7 == 4 and compressed[b - 4:b] == b"\0\0\xff\xff",
                     f"a sub-stream of segment {number} is framed otherwise")
            pieces = [inflate(compressed[a:b]) for a, b in zip(bounds, bounds[1:])]
            need(b"".join(pieces) == plain, f"sub-streams of segment {number} differ")
            lengths = [len(piece) for piece in pieces]
            need(lengths == split(len(plain)), f"sub-streams of segment {number}: {lengths}")
        else:
            need(subs == (0,) * 5, f"segment {number} has sub-offsets")
        segments.append(plain)
        if 0 < number < rows - 1:
            chunk_kinds.add(kind)
        at += size
    need(at + trailer == data_size, "the rows do not end at the end of the data")
    tail = tar_size - file_offset - file_size
    expected = [file_offset]
    expected += [min(chunk_size, file_size - k * chunk_size) for k in range(rows - 2)] + [tail]
    need([len(s) for s in segments] == expected, "a segment decodes to another length")
    need(not any(segments[-1]), "the tail is not zero")

    tar = b"".join(segments)
    need(plain_reader(blob) == tar, "a plain reader sees another tar")
    data = b"".join(segments[1:-1])
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        member = archive.next()
        need(member.isreg() and archive.extractfile(member).read() == data, "tarfile differs")
        need(member.name == notes["org.opencontainers.image.title"], "the tar has another name")
        need(member.mode == int(notes.get("io.modeloci.file.mode", "0644"), 8), "the modes differ")
        need(archive.next() is None, "the layer has a second member")
    need(notes["io.modeloci.file.digest"] == "sha256:" + hashlib.sha256(data).hexdigest(),
         "the file's digest differs")
    return data, sorted(chunk_kinds)


def split(length):
    """Literals in each of the six sub-streams of a literal-only segment."""
    return [length // 6 + (n < length % 6) for n in range(6)]


def main():
    archive = tarfile.open(sys.argv[1], mode="r:")
    read = lambda name: archive.extractfile(name).read()
    blob = lambda digest: read("blobs/" + digest.replace(":", "/"))
    need(json.loads(read("oci-layout")) == {"imageLayoutVersion": "1.0.0"}, "oci-layout")
    index = json.loads(read("index.json"))
    manifest = json.loads(blob(index["manifests"][0]["digest"]))
    need(json.loads(read("manifest.json")) == manifest, "manifest.json differs")
    result, links = {}, {}
    for descriptor in manifest["layers"]:
        data = blob(descriptor["digest"])
        need(len(data) == descriptor["size"], "a descriptor's size differs")
        need("sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"], "blob digest")
        if descriptor["mediaType"] == "application/vnd.oci.empty.v1+json":
            continue
        path = descriptor["annotations"]["org.opencontainers.image.title"]
        if "io.modeloci.chunks" not in descriptor["annotations"]:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data)), mode="r:") as layer:
                member = layer.next()
                need(member.name == path and layer.next() is None, "the layer has another member")
                need(member.issym(), "a layer without a table holds no link")
                target = os.path.join(os.path.dirname(path), member.linkname)
                links[path] = os.path.normpath(target)
            continue
        content, kinds = read_layer(descriptor, data, blob)
        result[path] = {"sha256": hashlib.sha256(content).hexdigest(), "kinds": kinds}
        if len(sys.argv) > 2:
            target = os.path.join(sys.argv[2], path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as out:
                out.write(content)
    for path, target in links.items():
        need(target in result, f"{path} leads to no file")
        result[path] = result[target]
    json.dump(result, sys.stdout, indent=1, sort_keys=True)


main()
