"""relay_verl: a plugin for verl that teaches a small model when to ask a big one (RelayLLM, arXiv 2601.05167).

Importing the package imports neither torch nor verl; `relay_verl.plugin` is what verl loads.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("relay-verl")
except PackageNotFoundError:  # a source tree on sys.path, not installed
    __version__ = "0.0.0"
