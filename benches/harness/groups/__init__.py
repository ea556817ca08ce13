"""The groups of measurements: each says in its docstring what it shows, and has `run`."""
