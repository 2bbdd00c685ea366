"""The socket by which the trainer's weights reach an engine on its node: named after the Ray cluster, too, and with a
deadline.

verl names it after Ray's job id, which is 01000000 for the first job of every cluster. Two trainings on one machine,
each with a cluster of its own, therefore bind the same file: an engine then waits for weights that never come, or reads
those of the other training. verl also waits for as long as it takes, so that a training whose engine was ended, such as
by Ray when memory is short, hangs in silence.

Remove this when verl's name differs between clusters (the job id came with verl-project/verl#6246), and its sender has
a deadline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import ray

DEADLINE_S = 600.0
"""Seconds that an engine has for each message: the first one, which it reads once it stands still, and a bucket."""


def cluster_job_id() -> str:
    """Ray's job id and its cluster, as a piece of a file's name."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{re.sub(r'[^A-Za-z0-9]+', '-', context.gcs_address)}"


def install_sender(module: Any) -> None:
    """Change the name in the trainer: `module` is verl's with the class `ServerAdapter`."""
    original = module.ServerAdapter.__init__

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        job_id = ray.get_runtime_context().get_job_id()
        self.zmq_handle = self.zmq_handle.replace(job_id, cluster_job_id())

    module.ServerAdapter.__init__ = init


def install_receiver(module: Any) -> None:
    """Change it in the server, from which its engine's workers have it: `module` is verl's with `vLLMHttpServer`."""
    original = module.vLLMHttpServer.__init__

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        os.environ["VERL_RAY_JOB_ID"] = cluster_job_id()

    module.vLLMHttpServer.__init__ = init


def install_deadline(module: Any) -> None:
    """End a sender that waits too long: `module` is verl's with `BucketedWeightSender`."""
    sender = module.BucketedWeightSender
    sender._init_socket = _with_deadline(sender._init_socket)
    original = sender.async_send_weights

    @wraps(original)
    async def send(self: Any, weights: Any) -> None:
        try:
            await original(self, weights)
        except module.zmq.Again:
            raise TimeoutError(
                f"the student's engine took no weights for {DEADLINE_S:g} s: it has died, such as by Ray's hand where "
                "memory is short, or it hangs"
            ) from None

    sender.async_send_weights = send


def _with_deadline(init_socket: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(init_socket)
    def init(self: Any) -> None:
        init_socket(self)
        self.socket.sndtimeo = self.socket.rcvtimeo = round(1000 * DEADLINE_S)
        self.socket.linger = 0  # what was not taken is not waited for again when it closes

    return init
