"""The pair that the package ships, two tiny students and their teacher, and what `relay-verl demo` does with it.

`shipped_pair` finds and checks the files, `pair_card` is what is stored of them, `demo_question` the questions,
`demo_relay` asks them under a few conditions, and `packing` makes the files. May import `pair`, `pages` and what is
below them. Everything that is said of the pair stands on its card: another pair takes its place as a folder of files.
"""
