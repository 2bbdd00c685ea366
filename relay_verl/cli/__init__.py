"""The commands of `relay-verl`, by what they are for."""
