"""What each process of vLLM does first where verl runs on CPU: wait for the others without a busy loop.

vLLM's processes talk through shared memory, and who waits for a message spins for a second before it waits for a
notification. On GPUs that costs an idle core. On CPU it is a core that the arithmetic lacks: a step of a model takes
less than a second, so the engine's core would spin through all of it. Here it sleeps between two looks instead. After
that second it waits for a notification, as vLLM does. It must not do so earlier: when notifications come that fast one
can get lost, and both sides then wait forever. Remove when vLLM does not spin on CPU.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from wrapt import register_post_import_hook

from relay_verl import cpu

LOOK_S = 0.0002
"""Seconds between two looks at the shared memory: little against a step, and some thousandths of a core."""


def register() -> None:
    """Entry point of vLLM's general plugins: loaded in its server, its core and its workers."""
    if cpu.is_chosen():
        register_post_import_hook(_never_spin, "vllm.distributed.device_communicators.shm_broadcast")


def _never_spin(module: Any) -> None:
    condition = module.SpinCondition
    if getattr(condition, "relay_verl_sleeps", False):  # each process may load its plugins more than once
        return
    original = condition.wait

    @functools.wraps(original)
    def wait(self: Any, timeout_ms: int | None = None) -> None:
        if time.monotonic() <= self.last_read + self.busy_loop_s:
            time.sleep(LOOK_S)
        else:
            original(self, timeout_ms)

    condition.wait = wait
    condition.relay_verl_sleeps = True
