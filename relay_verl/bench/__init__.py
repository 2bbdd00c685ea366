"""Benchmarks: each compares its sides on the same work in one run, and prints ratios with their spread."""
