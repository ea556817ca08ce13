"""The groups of measurements. Each has `run(bench, report)` and says in its docstring what it shows."""
