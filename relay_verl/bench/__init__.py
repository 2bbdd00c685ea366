"""Speed: each file compares several ways of the same work in one run, and prints ratios with their spread.

`relay_speed` compares rollouts, `evaluation_speed` evaluation loops, `filter_speed` filters; `timing` has what they
share. `served_pair_speed` measures servers that run already: `serving_speed` without calls, `hand_over` with them.
`scale` runs nothing: it simulates rollouts on many GPUs from the engine curves of a `scenario`, for the tables of
`scale_report` and the picture of `scale_picture`; `curves` measures such curves and compares the simulation with real
batches. To add one, write a file here and a command in `relay_verl.cli.bench`. May import every room but `cli`.
"""
