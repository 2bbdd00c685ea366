"""Datasets and what makes them: the call warm-up (paper 3.1) and the teacher-solvability filter (paper 3.2.2).

`sources` names the datasets and `prepare` writes them in the schema of `schema`; `warmup` inserts calls and
`warmup_generator` samples texts to insert them in; `teacher_filter` counts passes, `pass_counts` says what they mean;
`generate` runs both as jobs over a `source`. To add a dataset, add an entry in `sources`. May import `checkpoints` and
what is below it.
"""
