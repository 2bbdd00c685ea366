"""How a defer head comes about: CITER's pipeline, and Co-LLM's training.

`label_plan` and `label_run` are `relay-verl defer-data`: `labeller` labels in iteration 1, `relabeller` in later ones,
`labels` has the rule and `labelled_query` the file's column. `head_training` is `relay-verl defer-train`:
`hidden_states` reads the student, `objectives` has what each kind of head minimises, `head_trainer` minimises it.
`calibration` is `relay-verl calibrate`, with the search in `threshold_search`. To train another kind of head, add it to
`relay_verl.defer.heads` and to `OBJECTIVES`. May import the evaluation and what is below it.
"""
