"""Checkpoints that say what they are; verl writes and reads the checkpoints themselves.

`record` writes what a checkpoint was trained with and `changes` compares it with a new run, `integrity` checks whether
one is whole, `resume` picks the one to continue from, `callback` is what verl calls, `export` and `card` make a model
folder of one. A setting that a resumed run must not change is added in `changes`. May import `recipes` and what is
below it.
"""
