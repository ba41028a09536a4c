"""Benchmarks: each file runs alone (`python -m bench.startup`), `make bench` runs all. Figures, never assertions."""
