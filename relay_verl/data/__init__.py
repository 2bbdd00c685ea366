"""Datasets and what makes them: the call warm-up (paper 3.1) and the teacher-solvability filter (paper 3.2.2).

`prepare` writes questions in verl's schema (`schema`), from `sources` or a file of the user (`own`), without those that
`overlap` finds in evaluation sets. `warmup` inserts commands, `warmup_generator` samples the responses for it,
`teacher_filter` asks the teacher and `pass_counts` holds how often it was right. To add a training set, add an entry to
`sources`. May import `checkpoints` and what is below it.
"""
