"""The commands of `relay-verl`, one file a group.

`main` puts them together, `options` has the options that they share. To add a command, add a function to its group's
file, or a file that `main` names. Commands import what they run inside the function, so that `relay-verl --help` starts
fast. May import every room.
"""
