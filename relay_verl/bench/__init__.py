"""Benchmarks of speed: each compares its sides on the same work in one run, and prints ratios with their spread.

`relay_speed` times relaying against a barrier and plain generation, `evaluation_speed` and `filter_speed` time jobs
against simpler ways; `timing` runs the rounds. To add one, write `<what>_speed.py` and a command in
`relay_verl.cli.bench`. May import every room but `cli`.
"""
