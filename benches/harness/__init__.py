"""The measuring harness behind scripts/bench: one module per noun, one file per group."""
