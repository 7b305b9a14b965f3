"""Benchmarks: our speed, as a ratio to what else does the same work on the same machine."""
