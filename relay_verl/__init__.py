"""relay_verl: a plugin for verl that teaches a small model when to ask a big one (RelayLLM, arXiv 2601.05167).

Importing the package imports neither torch nor verl; `relay_verl.plugin` is what verl loads.
"""

from relay_verl.versions import find_version

__version__ = find_version("relay-verl") or "0.0.0"  # a source tree on sys.path is not installed
