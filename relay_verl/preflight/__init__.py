"""Checks before any model loads: of a composed config, of this machine, of the Ray cluster, and one trial of each
model.

`registry` lists them, `training` puts them in front of verl's trainers, `commands` in front of our own commands, and
`doctor` runs all of them. To add one, write a function that returns what it found or raises `UserError`, and name it in
`registry`. May import every room but `bench` and `cli`.
"""
