"""relay_verl: a plugin for verl that teaches a small model when to ask a big one (RelayLLM, arXiv 2601.05167).

Importing the package imports neither torch nor verl; `relay_verl.plugin` is what verl loads. `RelayPair`, which writes
texts with a trained pair, is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from relay_verl.versions import find_version

__version__ = find_version("relay-verl") or "0.0.0"  # a source tree on sys.path is not installed

if TYPE_CHECKING:
    from relay_verl.pair.relay_pair import RelayPair

__all__ = ["RelayPair", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "RelayPair":
        from relay_verl.pair.relay_pair import RelayPair

        return RelayPair
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
