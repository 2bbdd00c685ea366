"""What each process of vLLM does first where verl runs on CPU: wait for the others without a busy loop.

vLLM's processes talk through shared memory, and who waits for a message spins for a second before it sleeps. On GPUs
that costs an idle core. On CPU it is a core that the arithmetic lacks: a step of a model takes less than a second, so
the engine's core would spin through all of it. Asleep from the start, a message takes some tenths of a millisecond
longer. Remove when vLLM takes the time to spin from the outside, or does not spin on CPU.
"""

from __future__ import annotations

import functools
from typing import Any

from wrapt import register_post_import_hook

from relay_verl import cpu


def register() -> None:
    """Entry point of vLLM's general plugins: loaded in its server, its core and its workers."""
    if cpu.is_chosen():
        register_post_import_hook(_never_spin, "vllm.distributed.device_communicators.shm_broadcast")


def _never_spin(module: Any) -> None:
    condition = module.SpinCondition
    if getattr(condition, "relay_verl_sleeps", False):  # each process may load its plugins more than once
        return
    original = condition.__init__

    @functools.wraps(original)
    def init(self: Any, is_reader: bool, context: Any, notify_address: str, busy_loop_s: float = 0.0) -> None:
        original(self, is_reader, context, notify_address, busy_loop_s)

    condition.__init__ = init
    condition.relay_verl_sleeps = True
