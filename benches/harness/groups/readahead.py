"""How far the kernel reads ahead: streams through the mount, and lone faults of a mapping, for which
everything around them is read too.

Every read gets a mount of its own. Times are beside those with the default.
"""

import mmap
import random
import time

from ..measure import interleave
from ..workspace import chill, warm
from .cold import in_mount

TOUCHES = 20
SETTINGS = {
    "default": [],
    **{f"{size} MiB": ["-o", f"max_readahead={size}M"] for size in (1, 2, 4, 16)},
}


def touch(mount):
    """Touches single pages of a mapping; seconds, and the bytes that the mount served for them."""
    places = random.Random(1)
    before = mount.status()["bytes_served"]
    begun = time.perf_counter()
    with open(mount.file(), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for _ in range(TOUCHES):
            mapping[places.randrange(len(mapping))]
    return time.perf_counter() - begun, mount.status()["bytes_served"] - before


def run(bench, report):
    models = {kind: bench.data.model(kind, bench.medium) for kind in ("fp32", "bf16")}
    archives = {
        "stored": bench.pack(models["fp32"], "none", bench.space.path("stored.tar")),
        "bf16": bench.pack(models["bf16"], "auto", bench.space.path("bf16.tar")),
    }
    served = {}

    def touches(archive, options, name):
        def once():
            with bench.mount(archive, *options) as mount:
                seconds, served[name] = touch(mount)
                return seconds
        return once

    def cold(archive, once):
        def chilled():
            chill(archive)
            return once()
        return chilled

    for kind, archive in archives.items():
        warm(archive)
        ways = {
            "in order": lambda options: in_mount(bench, archive, "seq", options=options),
            "mapped in order": lambda options: in_mount(bench, archive, "mmap", options=options),
            "in order, cold disk": lambda options: cold(
                archive, in_mount(bench, archive, "seq", options=options)),
        }
        report.note(f"{kind}: time beside the default's")
        for way, contender in ways.items():
            warm(archive)
            timings = interleave(bench.runs, {
                name: contender(options) for name, options in SETTINGS.items()
            })
            for name in SETTINGS:
                ratio = timings.ratio(name, "default")
                report.row(f"{way}, {name}", ratio and f"{ratio:.2f} x", timings.missing.get(name))
        warm(archive)
        timings = interleave(bench.runs, {
            name: touches(archive, options, name) for name, options in SETTINGS.items()
        })
        for name in SETTINGS:
            median = timings.median(name)
            note = f"{served.get(name, 0) / (1 << 20):.1f} MiB read"
            report.row(f"{TOUCHES} random touches, {name}", median and f"{median * 1e3:.1f} ms",
                       timings.missing.get(name) or note)
        report.target(f"{kind}: served for each lone fault, MiB",
                      served["default"] / TOUCHES / (1 << 20), "<=", 1.05, "MiB")
