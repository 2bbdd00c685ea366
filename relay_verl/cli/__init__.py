"""The commands of `relay-verl`, one file a group of commands; `main` puts them together.

To add a command, write it in the file of its group: options it shares stand in `options`. A command imports what it
runs inside its function, so that `relay-verl --help` loads neither torch nor verl. May import every room.
"""
