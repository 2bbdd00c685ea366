"""Ray, started or joined as verl's trainer does it, with one line for each way in which that fails.

Invariant: what `start_ray` starts has the runtime environment that verl's `run_ppo` would give it, so that the trainer,
which takes a Ray that runs already, finds what it expects.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from omegaconf import OmegaConf

from relay_verl.config import ConfigError

CONNECT_DEADLINE_S = 10.0
STARTS_A_CLUSTER = {
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
    "_temp_dir",
}
"""Arguments of `ray.init` that start a cluster; Ray refuses them, or ignores them, beside an address."""


def ray_options(config: Any) -> dict[str, Any]:
    """The arguments of `ray.init`, as verl's `run_ppo` makes them of a composed config; sets what it sets in the
    environment of this process."""
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    rollout, judge = config.actor_rollout_ref.rollout, config.reward.reward_model
    if rollout.full_determinism or (judge.enable and judge.rollout.full_determinism):
        os.environ |= {"VERL_FULL_DETERMINISM": "1", "VLLM_BATCH_INVARIANT": "1", "PYTHONHASHSEED": str(rollout.seed)}
    if "rl_insight" in (config.trainer.logger or ()):
        os.environ["VERL_RL_INSIGHT_ENABLE"] = "1"
    runtime_env = get_ppo_ray_runtime_env(config)
    if config.transfer_queue.enable:
        runtime_env["env_vars"]["TRANSFER_QUEUE_ENABLE"] = "1"
    # resolved where it stands: what it refers to is elsewhere in the config
    ray_kwargs: dict[str, Any] = OmegaConf.to_container(config.ray_kwargs, resolve=True)  # type: ignore[assignment]
    options = ray_kwargs.get("ray_init") or {}
    merged: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        OmegaConf.merge(runtime_env, options.get("runtime_env") or {}), resolve=True
    )
    # Ray takes strings alone, and a command line reads OMP_NUM_THREADS=4 as a number
    variables = (merged.get("env_vars") or {}).items()
    merged["env_vars"] = {name: str(value) for name, value in variables if value is not None}
    return {**options, "runtime_env": merged}


def start_ray(config: Any, **changes: Any) -> None:
    """Start Ray as a composed config says, with `changes` to the arguments of `ray.init`; or join the cluster that
    `RAY_ADDRESS` or `ray_kwargs.ray_init.address` names. A Ray that this process has already stays as it is.

    Raises:
        ConfigError: nothing answers there, or it has other versions.
    """
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job and its recipe may both set a variable
    options = ray_options(config) | changes
    address = options.get("address") or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        options = {name: value for name, value in options.items() if name not in STARTS_A_CLUSTER}
        _check_answers(address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise ConfigError(explain(error, address)) from error


def explain(error: BaseException, address: str | None) -> str:
    """What an error of `ray.init` means and what mends it, in one line."""
    texts, each = [], error
    while each is not None:
        texts.append(str(each))
        each = each.__cause__ or each.__context__  # type: ignore[assignment]
    where = f"the Ray cluster at {address}" if address else "the Ray cluster that runs on this machine"
    whole = "\n".join(texts)
    mismatch = re.search(
        r"cluster was started with:\s*Ray: (\S+)\s*Python: (\S+)(?s:.*?)Ray: (\S+)\s*Python: (\S+)", whole
    )
    if mismatch:
        ray_there, python_there, ray_here, python_here = mismatch.groups()
        return (
            f"{where} runs Ray {ray_there} on Python {python_there}, and this process Ray {ray_here} on Python "
            f"{python_here}: both must be the same; install Ray {ray_there} in an environment with Python "
            f"{python_there} here, or start the cluster from this one"
        )
    if "existing cluster" in whole and address is None:
        return (
            f"{where} would be joined, and ray_kwargs.ray_init starts one: set RAY_ADDRESS=auto to join it, "
            "RAY_ADDRESS=local to start another, or end it with `ray stop`"
        )
    line = " ".join(texts[0].split())
    return f"{where} cannot be joined: {line}" if address else f"Ray does not start: {line}"


def _check_answers(address: str) -> None:
    """Something listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # 'auto': Ray looks for it on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_DEADLINE_S).close()
    except OSError as error:
        raise ConfigError(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({error.strerror or error}); start it with `ray start "
            "--head` there, or unset RAY_ADDRESS to start Ray on this machine"
        ) from None
