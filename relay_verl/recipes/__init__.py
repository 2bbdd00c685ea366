"""The recipes as a catalog: what each is, what it changes, what it needs.

`recipe` reads one recipe's file, `compose` lets Hydra compose it, `overrides` checks a command line against it;
`listing` and `detail` show recipes, `memory` estimates GPUs, `paper` has the paper's rows and numbers. The recipes
themselves are in the folder `recipes/` next to the package: to add one, add a file there. May import `models` and what
is below it.
"""
