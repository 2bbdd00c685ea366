"""How many threads a process computes with on CPU: the cores, divided by the processes that compute at the same time.

The CPU part of the recipes asks for two numbers through `${relay_threads:...}`. `trainer` is for the ranks of the
trainer, which compute while the engines wait (verl's sync mode): the cores divided by the ranks of a node. `engines` is
for vLLM's workers: the cores divided by the engines that write at the same time, which in training are the student's
and the teachers' replicas on a node. A command that starts models itself knows who writes together and says so with
`share_cores`: an engine that is alone has all cores. A number on the command line
(`ray_kwargs.ray_init.runtime_env.env_vars.RELAY_ENGINE_THREADS=4`, `...OMP_NUM_THREADS=4`) stays as it is.

Engines that write together split the cores, since more threads than cores make each engine wait for a thread that does
not run; with OpenMP's default, where a thread that waits spins, most of the time is lost. The trainer and the engines
alternate, so each may have all cores, and the recipes set OMP_WAIT_POLICY=PASSIVE.

Invariant: a deterministic run computes with one thread everywhere, since the order of a sum depends on their number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_verl.run_config import VerlConfig

RESOLVER = "relay_threads"
ENGINE_THREADS = "RELAY_ENGINE_THREADS"
"""Environment variable of a Ray job: threads of each vLLM worker. `OMP_NUM_THREADS` is that of all other processes."""


def num_cores() -> int:
    """Physical cores that this process may use, or the logical ones where it may use fewer of these."""
    import psutil

    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def split_cores(num_processes: int) -> int:
    """Threads for each of so many processes that compute at the same time."""
    return max(1, num_cores() // max(1, num_processes))


def register_resolver() -> None:
    """Let OmegaConf resolve `${relay_threads:trainer}` and `${relay_threads:engines}`; a second call does nothing."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver(RESOLVER, _resolve, replace=True)


def _resolve(who: str, *, _root_: Any) -> str:
    """Threads as an environment variable has them."""
    from omegaconf import OmegaConf

    if who not in ("trainer", "engines"):
        raise ValueError(f"${{{RESOLVER}:{who}}}: expected trainer or engines")
    if OmegaConf.select(_root_, "actor_rollout_ref.rollout.full_determinism"):
        return "1"
    num_ranks = OmegaConf.select(_root_, "trainer.n_gpus_per_node") or 1
    return str(split_cores(num_ranks if who == "trainer" else _num_engines(_root_, num_ranks)))


def _num_engines(config: VerlConfig, num_ranks: int) -> int:
    """Workers of vLLM that write at the same time on a node in training; the teachers' count as if on one node."""
    from relay_verl.run_config import RunConfig

    teachers = RunConfig(config).teachers.values()
    # a teacher with nodes of its own takes nothing from the student's
    local = [teacher for teacher in teachers if teacher.path is not None and teacher.node_resource is None]
    return num_ranks + sum(teacher.num_replicas * teacher.tensor_parallel_size for teacher in local)


def share_cores(config: VerlConfig, num_engines: int, *, is_deterministic: bool = False) -> None:
    """Give each of the engines that a command is about to start its share of the cores.

    Args:
        config: a composed recipe; a recipe that is not for CPU, or that gives a number, stays as it is.
        num_engines: workers of vLLM that write at the same time.
        is_deterministic: one thread each, whatever the machine.
    """
    from omegaconf import OmegaConf

    variables = OmegaConf.select(config, "ray_kwargs.ray_init.runtime_env.env_vars")
    if variables is not None and ENGINE_THREADS in variables and OmegaConf.is_interpolation(variables, ENGINE_THREADS):
        variables[ENGINE_THREADS] = "1" if is_deterministic else str(split_cores(num_engines))


def engine_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine's process in a Ray job with these variables: OpenMP reads one number."""
    threads = variables.get(ENGINE_THREADS)
    return {**variables, "OMP_NUM_THREADS": threads} if threads else dict(variables)
