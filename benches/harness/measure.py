"""Timings: interleaved, medians, ratios of what ran side by side."""

import os
import pathlib
import resource
import statistics
import subprocess
import time

from .environment import Unavailable

# Seconds after which a contender is not measured again.
LONG = 30


class Timings:
    """What each contender took, round by round, in seconds (or any unit that shrinks)."""

    def __init__(self):
        self.rounds = {}
        self.missing = {}

    def median(self, name):
        """None when the contender was not measured."""
        values = self.rounds.get(name)
        return statistics.median(values) if values else None

    def ratio(self, numerator, denominator):
        """Median over the rounds of one contender's figure by another's; None when one is
        missing. Both ran right after each other, so a slow moment of the machine hits both."""
        above, below = self.rounds.get(numerator), self.rounds.get(denominator)
        if not above or not below:
            return None
        return statistics.median(a / b for a, b in zip(above, below) if b)


def interleave(runs, contenders):
    """Runs all contenders, then all again, `runs` times, another one first in each round: a processor
    that rested before is slower for a moment. A contender is a function that returns its
    figure; one that raises Unavailable or fails is left out, with its reason. What takes long is
    measured once: a peer that needs a minute is not close."""
    timings = Timings()
    slow = set()
    order = list(contenders.items())
    for number in range(runs):
        first = number % len(order)
        for name, contender in order[first:] + order[:first]:
            if name in timings.missing or name in slow:
                continue
            begun = time.monotonic()
            try:
                value = contender()
            except Unavailable as reason:
                timings.missing[name] = str(reason)
            except Exception as error:  # A peer that breaks is a result, not an end.
                timings.missing[name] = f"failed: {' '.join(str(error).split())[:200]}"
            else:
                timings.rounds.setdefault(name, []).append(value)
            if time.monotonic() - begun > LONG:
                slow.add(name)
        for name in timings.missing:
            timings.rounds.pop(name, None)
    return timings


def timed(command, **options):
    """Seconds that a command takes; its output goes nowhere unless asked otherwise."""
    options.setdefault("stdout", subprocess.DEVNULL)
    begun = time.perf_counter()
    done = subprocess.run([str(word) for word in command], stderr=subprocess.PIPE, **options)
    seconds = time.perf_counter() - begun
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{command[0]}: exit {done.returncode}: {text}")
    return seconds


def piped(*commands, output=subprocess.DEVNULL):
    """Seconds that a pipeline takes, all of it."""
    begun = time.perf_counter()
    source, processes = None, []
    for number, command in enumerate(commands):
        last = number == len(commands) - 1
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=source,
            stdout=output if last else subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if source:
            source.close()
        source = process.stdout
        processes.append(process)
    failed = [process.args[0] for process in processes if process.wait()]
    seconds = time.perf_counter() - begun
    if failed:
        raise RuntimeError(f"{failed[0]} failed")
    return seconds


def processor_time(*pids):
    """Processor seconds so far: of our children that have ended, and of processes that run, with
    what they waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for pid in pids:
        # What follows the name, which may hold anything, starts with the third field of proc(5).
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds
