"""kernel_paths.py DIR MOUNT: reads every file of MOUNT in the ways that bypass read(2), and compares
with the same file in DIR.
"""

import mmap
import os
import random
import socket
import sys
import tempfile
import threading

original, mount = sys.argv[1:]


def mapped(path, flags):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return b""
        with mmap.mmap(file.fileno(), size, flags=flags, prot=mmap.PROT_READ) as area:
            # Last page first, so that faults do not come in order.
            pages = [area[at:at + 4096] for at in reversed(range(0, size, 4096))]
            return b"".join(reversed(pages))


def mapped_and_written(path):
    """A private mapping may be written to; the file stays as it is."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return b""
        with mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE,
                       prot=mmap.PROT_READ | mmap.PROT_WRITE) as area:
            first = area[0]
            area[0] = first ^ 0xFF
            area[0] = first
            return area[:]


def sent(path):
    """sendfile(2) to a socket."""
    here, there = socket.socketpair()
    received = bytearray()

    def receive():
        while piece := there.recv(1 << 16):
            received.extend(piece)

    receiver = threading.Thread(target=receive)
    receiver.start()
    with open(path, "rb") as file:
        at = 0
        while n := os.sendfile(here.fileno(), file.fileno(), at, 1 << 20):
            at += n
    here.close()
    receiver.join()
    there.close()
    return bytes(received)


def copied(path):
    """copy_file_range(2) to a file of another file system."""
    with open(path, "rb") as file, tempfile.TemporaryFile() as out:
        try:
            while os.copy_file_range(file.fileno(), out.fileno(), 1 << 20):
                pass
        except OSError as error:
            # Kernels before 5.19 refuse between file systems of two types, and cp(1) then reads.
            if out.tell() or os.strerror(error.errno) != "Invalid cross-device link":
                raise
            return None
        out.seek(0)
        return out.read()


def spliced(path):
    """splice(2) into a pipe."""
    if not hasattr(os, "splice"):
        return None
    out = []
    reader, writer = os.pipe()
    with open(path, "rb") as file:
        while n := os.splice(file.fileno(), writer, 1 << 16):
            while n:
                piece = os.read(reader, n)
                out.append(piece)
                n -= len(piece)
    os.close(reader)
    os.close(writer)
    return b"".join(out)


def scattered(path):
    """preadv(2) at random offsets of one shared descriptor, from several threads."""
    size = os.stat(path).st_size
    content = bytearray(size)
    pieces = list(range(0, size, 10_007))
    random.Random(1).shuffle(pieces)
    file = os.open(path, os.O_RDONLY)

    def read(mine):
        for at in mine:
            view = memoryview(content)[at:at + 10_007]
            if os.preadv(file, [view[:100], view[100:]], at) != len(view):
                raise AssertionError(f"{path}: short read at {at}")

    threads = [threading.Thread(target=read, args=(pieces[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(file)
    return bytes(content)


def main():
    ways = {
        "MAP_PRIVATE": lambda path: mapped(path, mmap.MAP_PRIVATE),
        "MAP_SHARED": lambda path: mapped(path, mmap.MAP_SHARED),
        "a written private mapping": mapped_and_written,
        "sendfile": sent,
        "copy_file_range": copied,
        "splice": spliced,
        "preadv": scattered,
    }
    files = 0
    for directory, _, names in os.walk(original):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                expected = file.read()
            there = os.path.join(mount, os.path.relpath(path, original))
            for way, read in ways.items():
                found = read(there)
                if found is not None and found != expected:
                    sys.exit(f"{there}: {way} sees other bytes")
            files += 1
    assert files > 0


main()
