"""What another package can add to relay_verl, one a file; pyproject.toml gives each a short name."""
