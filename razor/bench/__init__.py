"""Benchmarks: each prints its numbers with the targets beside them, from one run."""
