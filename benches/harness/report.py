"""What was measured: one table per group, and which targets are met."""

import platform


class Report:
    """Collects lines and prints them as they come."""

    def __init__(self, args):
        self._args = args
        self._lines = []
        self._targets = []
        self._rows = []
        self._group = ""
        self._failures = []

    def _print(self, line=""):
        print(line, flush=True)
        self._lines.append(line)

    def head(self, description):
        self._print(f"modeloci bench: {description}")
        self._print("Figures are medians of interleaved runs; believe ratios, not rates.")

    def group(self, name, what):
        self._group = name
        self._print()
        self._print(f"== {name}: {what}")

    def note(self, text):
        self._print(f"   {text}")

    def failed(self, error):
        self._failures.append(f"{self._group}: {error}")
        self._print(f"   FAILED: {type(error).__name__}: {error}")

    def row(self, what, value, *notes):
        """One measurement; `value` None for one that could not be made, with the reason."""
        notes = [note for note in notes if note]
        if value is None:
            value = f"n/a ({'; '.join(notes) or 'not measured'})"
            notes = []
        self._rows.append({"group": self._group, "what": what, "value": value, "notes": notes})
        self._print(f"   {what:<50} {value:>14}  {'; '.join(notes)}".rstrip())

    def timings(self, timings, bytes_of, unit="MB/s", notes=None):
        """A row for each contender: its rate, for `bytes_of(name)` bytes, or its time."""
        notes = notes or {}
        for name in [*timings.rounds, *timings.missing]:
            seconds = timings.median(name)
            if seconds is None:
                self.row(name, None, timings.missing.get(name))
            elif unit == "MB/s":
                self.row(name, f"{bytes_of(name) / seconds / 1e6:,.0f} MB/s", notes.get(name))
            elif unit == "ms":
                self.row(name, f"{seconds * 1e3:,.2f} ms", notes.get(name))
            else:
                self.row(name, f"{seconds:,.2f} s", notes.get(name))

    def target(self, what, measured, relation, limit, unit="x"):
        """A target of the project, e.g. `target("…", 3.2, ">=", 3)`."""
        if measured is None:
            verdict, figure = "n/a", "n/a"
        else:
            met = measured >= limit if relation == ">=" else measured <= limit
            verdict = "PASS" if met else "FAIL"
            # Two more digits than the limit decide nothing.
            figure = f"{measured:.3g} {unit}" if abs(measured) < 1000 else f"{measured:,.0f} {unit}"
        self._targets.append({
            "group": self._group, "what": what, "measured": measured, "relation": relation,
            "limit": limit, "unit": unit, "verdict": verdict,
        })
        self._print(f"   {verdict:<4} {what}: {figure} (target {relation} {limit:g} {unit})")

    def summary(self):
        counts = {verdict: 0 for verdict in ("PASS", "FAIL", "n/a")}
        for target in self._targets:
            counts[target["verdict"]] += 1
        self._print()
        self._print(
            f"targets: {counts['PASS']} met, {counts['FAIL']} missed, {counts['n/a']} not measured"
        )
        for target in self._targets:
            if target["verdict"] == "FAIL":
                self._print(
                    f"   missed: {target['group']}: {target['what']}: {target['measured']:.3g} "
                    f"{target['unit']} (target {target['relation']} {target['limit']:g})"
                )
        for failure in self._failures:
            self._print(f"   group failed: {failure}")

    def text(self):
        return "\n".join(self._lines) + "\n"

    def data(self):
        return {
            "machine": {"kernel": platform.release(), "processor": processor()},
            "size": self._args.size,
            "runs": self._args.runs,
            "rows": self._rows,
            "targets": self._targets,
            "failures": self._failures,
        }


def processor():
    """As the kernel names it."""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"
