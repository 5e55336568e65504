"""Benchmarks of this pack beside its peers: `python -m benchmarks run | report | check`."""
