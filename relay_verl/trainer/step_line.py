"""A short line per training step, next to verl's own of some 6,000 characters.

    relay_verl: step 12: accuracy 61.7%, 33.3% of responses call, 4.0% of the tokens are the teacher's, 7.1 s

It goes to standard error of the process that logs the step, whose output Ray shows in the driver's.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

from relay_verl.jobs.byproducts import by_product

PARTS = (
    ("relay/accuracy", "accuracy {:.1%}"),
    ("relay/call_rate", "{:.1%} of responses call"),
    ("relay/call_ratio", "{:.1%} of the tokens are the teacher's"),
    ("timing_s/step", "{:.1f} s"),
)
"""A metric of the step, and how it is said."""


def line_of_step(metrics: Mapping[str, Any], step: int) -> str | None:
    """The line; None for what is not a training step of ours, such as a validation before the first step.

    >>> line_of_step({"relay/accuracy": 0.5, "relay/call_rate": 0.25, "timing_s/step": 3.0}, 2)
    'relay_verl: step 2: accuracy 50.0%, 25.0% of responses call, 3.0 s'
    """
    if "relay/accuracy" not in metrics:
        return None
    parts = [text.format(float(metrics[name])) for name, text in PARTS if name in metrics]
    return f"relay_verl: step {step}: {', '.join(parts)}"


def install(module: Any) -> None:
    """Let `Tracking` of `verl.utils.tracking` print it with each step that it logs; a second call does nothing.

    Remove this when verl's console logger can be told what to print.
    """
    original = module.Tracking.log
    if getattr(original, "is_relay_step_line", False):
        return

    @functools.wraps(original)
    def log(self: Any, data: Any, step: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, data, step, *args, **kwargs)
        with by_product("the line of a step"):
            line = line_of_step(data, step)
            if line is not None:
                print(line, file=sys.stderr, flush=True)
        return result

    log.is_relay_step_line = True  # type: ignore[attr-defined]
    module.Tracking.log = log
