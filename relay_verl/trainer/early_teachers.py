"""The teachers start while verl builds the trainer and its own engines, not behind them. A teacher that also scores
(`distillation.enabled`) is verl's own, which verl starts by itself.

They take their GPUs once the trainer has its own, so both find what they would find one after the other. Invariant:
the trainer has one start of its teachers; a start that failed raises where the teachers are asked for.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from relay_verl.models.pretrained import load_trainers_tokenizer, trusts
from relay_verl.run_config import RunConfig

_started: Future[dict[str, Any]] | None = None


async def teachers_of(run: RunConfig, clients: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The run's teacher groups by label: those that are starting in this process, else started now; none are needed by
    a run without calls and without distillation.

    Args:
        run: a composed recipe.
        clients: verl's own, of the teacher that it started for its distillation.

    Raises:
        UserError: the cluster lacks the resources, or one did not start in time.
    """
    if run.distillation is not None:
        from relay_verl.models.teacher_group import take_teacher

        return await take_teacher(run, clients or {}, _students_tokenizer(run))
    if not run.teachers:
        return {}
    return await asyncio.wrap_future(_started or _start(run))


def install(module: Any) -> None:
    """Let verl's trainer start the teachers as soon as it has its GPUs; a second call does nothing.

    Remove this when verl starts the engines of an agent loop manager along with its own.
    """
    original = module.PPOTrainer._init_resource_pool_mgr
    if getattr(original, "starts_teachers", False):
        return

    @functools.wraps(original)
    def init(self: Any) -> None:
        original(self)
        run = RunConfig(self.config)
        if run.has_relay and run.teachers and run.distillation is None:
            _start_after(self.resource_pool_manager, run)

    init.starts_teachers = True  # type: ignore[attr-defined]
    module.PPOTrainer._init_resource_pool_mgr = init


def _start_after(manager: Any, run: RunConfig) -> None:
    """Start the teachers once the manager's pools have their GPUs, which they else get with their first workers."""
    create = manager.create_resource_pool

    def create_and_start() -> None:
        global _started
        create()
        for pool in manager.resource_pool_dict.values():
            pool.get_placement_groups(device_name=run.trainer.device)
        _started = _start(run)

    manager.create_resource_pool = create_and_start


def _start(run: RunConfig) -> Future[dict[str, Any]]:
    """Start the teachers in a thread of their own."""
    from verl.workers.rollout.replica import get_rollout_replica_class

    from relay_verl.models.launch import start_teachers

    rollout = run.verl.actor_rollout_ref.rollout
    get_rollout_replica_class(rollout.name)  # two threads that import vLLM at the same time may see half a module
    tokenizer = _students_tokenizer(run)
    future: Future[dict[str, Any]] = Future()

    def work() -> None:
        try:
            future.set_result(asyncio.run(start_teachers(run, tokenizer)))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="relay teachers", daemon=True).start()
    return future


def _students_tokenizer(run: RunConfig) -> Any:
    return load_trainers_tokenizer(run.prompts.tokenizer_of(run.verl.actor_rollout_ref.model.path), trusts(run.prompts))
