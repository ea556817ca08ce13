"""The command line: which groups run, at which size, and what is left behind (nothing)."""

import argparse
import importlib
import json
import pathlib
import signal
import sys
import time

from . import environment
from .workspace import Workspace

# In this order; groups of the cheapest data first.
GROUPS = {
    "pack": "packing: rate and size, by kind of data",
    "seq": "sequential reads through the library",
    "random": "first touches at random places, through the mount",
    "firstbyte": "the first byte after mounting, small and large layers",
    "mounttime": "mounting archives of 200 layers",
    "foreign": "other tools' tar+gzip layers",
    "memory": "peak memory",
    "warm": "second pass through the mount",
    "cold": "first pass through the mount",
    "small": "10,000 small files",
    "load": "from nothing to a loaded model",
    "node": "a model larger than memory, from a disk of 500 MB/s",
    "readahead": "how far the kernel reads ahead",
    "knobs": "what each knob of the mount is worth",
    "before": "beside an earlier modeloci (--beside)",
}


def parse_size(text):
    """Bytes: 64M, 512MiB, 2GiB."""
    digits = text.rstrip("iBbKkMmGg")
    units = {"": 0, "k": 10, "m": 20, "g": 30}
    unit = text[len(digits):].lower().rstrip("b").rstrip("i")
    if not digits.isdecimal() or unit not in units:
        raise argparse.ArgumentTypeError("not a size such as 512MiB or 2G")
    size = int(digits) << units[unit]
    if size < 16 << 20:
        raise argparse.ArgumentTypeError("below 16 MiB nothing but noise is measured")
    return size


def parse(argv):
    names = "\n".join(f"  {name:<10} {what}" for name, what in GROUPS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures modeloci beside what one would use instead.",
        epilog=f"groups:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: a sanity check")
    parser.add_argument("--size", type=parse_size, help="of the large layer [default: 2GiB]")
    parser.add_argument("--runs", type=int, help="rounds of each comparison [default: 3]")
    parser.add_argument("--only", action="append", metavar="GROUP", help="repeatable, or a,b,c")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR",
                        help="also write bench.txt and bench.json there")
    parser.add_argument("--binary", type=pathlib.Path, help="measure this modeloci; build nothing")
    parser.add_argument("--beside", type=pathlib.Path, metavar="FILE",
                        help="an earlier modeloci: measure the group `before`, or what --only says")
    parser.add_argument("--no-install", action="store_true", help="use only what is there")
    args = parser.parse_args(argv)
    args.size = args.size or (64 << 20 if args.quick else 2 << 30)
    args.runs = args.runs or (1 if args.quick else 3)
    chosen = [name for word in args.only or [] for name in word.split(",")]
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        parser.error(f"no such group: {', '.join(unknown)}")
    if args.beside and not args.beside.is_file():
        parser.error(f"--beside: {args.beside} is no file")
    if args.beside and not chosen:
        chosen = ["before"]
    args.groups = [name for name in GROUPS if name in (chosen or GROUPS.keys() - {"before"})]
    # A sanity check shows that everything runs; these groups need time, or size, to say anything.
    if args.quick and not chosen:
        args.groups = [name for name in args.groups if name not in ("load", "node", "knobs")]
    return args


def main(root):
    args = parse(sys.argv[1:])
    # Runs this program again inside a virtual environment that has numpy and the peers.
    environment.enter(root, install=not args.no_install)
    from .bench import Bench
    from .report import Report

    # A stop by kill cleans up as one by Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(args)
    with Workspace(environment.cache()) as workspace:
        bench = Bench(root, args, workspace)
        report.head(bench.describe())
        if args.quick:
            report.note("--quick: too little data for the targets to mean anything")
        for name in args.groups:
            begun = time.monotonic()
            module = importlib.import_module(f".groups.{name}", __package__)
            report.group(name, GROUPS[name])
            try:
                module.run(bench, report)
            except Exception as error:  # One group that fails must not hide the others.
                report.failed(error)
            finally:
                workspace.clear()
            report.note(f"({time.monotonic() - begun:.0f} s)")
    report.summary()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.txt").write_text(report.text())
        (args.out / "bench.json").write_text(json.dumps(report.data(), indent=1) + "\n")
    return 0
