"""A training that ends with an error of ours ends with its one line, below whatever Ray and verl print on the way."""

from __future__ import annotations

import functools
import sys
from typing import Any


def install() -> None:
    """Put it around `run_ppo` of verl's trainer, which runs as the main module; a second call does nothing.

    Remove this when verl offers plugins a hook on a run's end.
    """
    main = sys.modules["__main__"]
    original = getattr(main, "run_ppo", None)
    if original is None or getattr(original, "is_relay_ending", False):
        return

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except Exception as error:
            line = line_of(error)
            if line is None:
                raise
            sys.exit(f"relay_verl: {line}")

    run.is_relay_ending = True  # type: ignore[attr-defined]
    main.run_ppo = run  # type: ignore[attr-defined]


def line_of(error: BaseException) -> str | None:
    """What an error of ours says, also one that comes from a Ray worker; None for anybody else's."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and error.cause is not error:
        error = error.cause
    return str(error) if type(error).__module__.partition(".")[0] == "relay_verl" else None
