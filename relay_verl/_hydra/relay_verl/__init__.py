"""Hydra plugin (`hydra_plugins.relay_verl`)."""
