"""Measures a student with or without a teacher on benchmarks: one runner for every row of the paper's tables.

`suite` says what is measured, `runner` starts the models and runs one job a condition, `worker` answers one question,
`job_spec` decides whether a result is the same one. May import `report` and what is below it.
"""
