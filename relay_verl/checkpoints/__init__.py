"""Checkpoints that say what they are: the records next to them, whether they are whole, which one a run resumes at, and
their export. verl writes and reads the checkpoints themselves.

`record` is what a checkpoint says of its run, `changes` compares two records, `resume` picks the checkpoint,
`integrity` checks its files, `callback` writes the record in verl's trainer. `export` makes a Hugging Face folder,
`card` its model card, `relay_file` its `relay.json`, and `push` uploads it. May import `recipes` and what is below it.
"""
