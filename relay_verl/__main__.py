"""`python -m relay_verl` is `relay-verl`."""

from relay_verl.cli.main import main

main()
