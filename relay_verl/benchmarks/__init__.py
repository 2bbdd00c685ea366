"""Benchmarks by name: where their questions come from, how a response is sampled and how it is graded.

`registry` has one entry a benchmark: to add one, add an entry there. `readers` and `rows` turn a dataset's rows into
questions in verl's schema, `own` does it for a file of the user, `file` writes a benchmark as a file. May import `data`
and what is below it.
"""
