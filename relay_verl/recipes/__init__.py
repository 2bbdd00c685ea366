"""The recipes as a catalog: what each is, what it changes, what memory it takes, and which row of the paper it is.

`recipe` reads the YAML files, `compose` composes one as verl does, `overrides` checks a command line against it,
`listing` and `detail` print them, `paper` has the paper's rows. A new recipe is a file in `recipes/recipe/`, not here.
May import `models`, `config` and what is below them.
"""
