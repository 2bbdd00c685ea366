"""The last line of a training that an error of ours or Ctrl-C ends, below whatever Ray and verl print on the way.

It says what is wrong, or which checkpoint is kept.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import Any

from relay_verl import interruption
from relay_verl.checkpoints.guard import runs_folder
from relay_verl.checkpoints.integrity import kept_in

_MEMORY_ON_NODE = re.compile(r"Memory on the node .*? was ([\d.]+) ?GB(?: used)? / ([\d.]+) ?GB")


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
        with interruption.reported("relay_verl"):
            try:
                return original(*args, **kwargs)
            except KeyboardInterrupt as error:
                config = args[0] if args else kwargs["config"]
                can_resume = config.trainer.get("resume_mode", "auto") != "disable"
                error.add_note(kept_in(runs_folder(config), can_resume=can_resume))
                raise
            except Exception as error:
                line = line_of(error)
                if line is None:
                    raise
                sys.exit(f"relay_verl: {line}")

    run.is_relay_ending = True  # type: ignore[attr-defined]
    main.run_ppo = run  # type: ignore[attr-defined]


def line_of(error: BaseException) -> str | None:
    """What an error of ours says, also one that comes from a Ray worker, and what Ray's pages on full memory mean; None
    for all other errors."""
    from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

    while isinstance(error, RayTaskError) and error.cause is not error:
        error = error.cause
    # An actor that Ray ends for its memory is reported as dead, with the memory monitor's text as the reason.
    used = _MEMORY_ON_NODE.search(str(error)) if isinstance(error, (OutOfMemoryError, RayActorError)) else None
    if used or isinstance(error, OutOfMemoryError):
        figures = f" ({used[1]} of {used[2]} GB were in use)" if used else ""
        return (
            f"out of memory: Ray ended a worker because its node was full{figures}: use smaller models, fewer "
            "replicas, or a machine with more memory; `relay-verl doctor` estimates what a recipe takes"
        )
    return str(error) if type(error).__module__.partition(".")[0] == "relay_verl" else None
