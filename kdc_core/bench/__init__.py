"""Benchmarks: medians of interleaved runs in one process."""
