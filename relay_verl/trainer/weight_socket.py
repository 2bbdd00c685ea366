"""The socket by which the trainer's weights reach an engine on its node, named after the Ray cluster, too.

verl names it after Ray's job id, which is 01000000 for the first job of every cluster. Two trainings on one machine,
each with a cluster of its own, therefore bind the same file: an engine then waits for weights that never come, or reads
those of the other training.

Remove this when verl's name differs between clusters (the job id came with verl-project/verl#6246).
"""

from __future__ import annotations

import os
import re
from functools import wraps
from typing import Any

import ray


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
