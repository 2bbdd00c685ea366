"""What a training leaves: an error of ours as the last line, below whatever Ray and verl print; after Ctrl-C, which
checkpoint is kept; and, for the next run of a sweep, this process as it was before: its environment, no Ray, no lock.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from relay_verl.checkpoints.integrity import kept_in
from relay_verl.checkpoints.lock import release
from relay_verl.checkpoints.resume import runs_folder
from relay_verl.jobs import interruption
from relay_verl.secrets import hide_in_text

_MEMORY_ON_NODE = re.compile(r"Memory on the node .*? was ([\d.]+) ?GB(?: used)? / ([\d.]+) ?GB")


def install(environment: Mapping[str, str], *, ends_ray: bool) -> None:
    """Put it around `run_ppo` of verl's trainer, which runs as the main module, for one run.

    Remove this when verl offers plugins a hook on a run's end.

    Args:
        environment: that of this process before the run.
        ends_ray: whether the run started Ray, or joined it.
    """
    main = sys.modules["__main__"]
    original = getattr(main, "run_ppo", None)
    if original is None:
        return
    original = getattr(original, "relay_original", original)

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
                sys.exit(f"relay_verl: {hide_in_text(line)}")
            finally:
                end_run(environment, ends_ray=ends_ray)

    run.relay_original = original  # type: ignore[attr-defined]
    main.run_ppo = run  # type: ignore[attr-defined]


def end_run(environment: Mapping[str, str], *, ends_ray: bool) -> None:
    """Leave this process as it was before the run."""
    import ray

    if ends_ray:
        ray.shutdown()  # its actors hold the GPUs
    release()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


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
