"""Ray, started or joined as verl's trainer does it, with a one-line error for each way in which that fails.

Invariant: what `start_ray` starts has the runtime environment that verl's `run_ppo` would give it, so that the trainer,
which takes a Ray that runs already, finds what it expects; and its workers have what the driver's environment says
(`relay_verl.models.worker_environment`).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from omegaconf import OmegaConf

from relay_verl import cpu
from relay_verl.config import TeacherSettings, num_gpus_of
from relay_verl.cpu.threads import share_cores
from relay_verl.errors import UserError
from relay_verl.models.worker_environment import carry, key_variables
from relay_verl.run_config import RunConfig, VerlConfig, resolve

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
"""Arguments of `ray.init` that start a cluster; Ray refuses them, or ignores them, next to an address."""
LONGEST_SOCKET_PATH = 107
"""Bytes of the path of a socket on Linux."""
SHORT_FOLDER = "/tmp"
VLLMS_PART = len("/00000000-0000-0000-0000-000000000000")
"""Bytes of it that are vLLM's."""
CLIENT = "ray://"
"""How the address of a Ray client begins. Its proxy takes no function, and so none that sets the environment."""
RAYS_PART = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
"""Bytes of it that are Ray's, below its folder."""


def ray_options(config: VerlConfig) -> dict[str, Any]:
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


def start_ray(run: RunConfig, **changes: Any) -> bool:
    """Start Ray as a composed config says, with `changes` to the arguments of `ray.init`; or join the cluster that
    `RAY_ADDRESS` or `ray_kwargs.ray_init.address` names. A Ray that this process has already stays as it is.

    Returns:
        whether it has started a cluster, which is this machine and this environment alone.

    Raises:
        UserError: nothing answers there, it has other versions, or the address is that of a Ray client.
    """
    import ray

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a submitted job and its recipe may both set a variable
    options = ray_options(run.verl) | changes
    address = options.get("address") or os.environ.get("RAY_ADDRESS")
    is_joined = _is_there(address)
    if address and address.startswith(CLIENT):
        raise UserError(
            f"RAY_ADDRESS: {address}: a Ray client does not hand this command's environment to the workers: submit the "
            "command as a job (`ray job submit`), or run it on a node of the cluster with its address, HOST:PORT"
        )
    if address and is_joined:
        options = {name: value for name, value in options.items() if name not in STARTS_A_CLUSTER}
        _check_answers(address)
    else:
        _check_socket_paths(options.get("_temp_dir"))
    keys = key_variables(run.relay) if run.has_relay else ()
    options["runtime_env"] = carry(options["runtime_env"], os.environ, keys)
    try:
        with nullcontext() if is_joined else _logical_gpus():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()
        raise UserError(explain_ray_error(error, address)) from error
    return not is_joined


def joins_cluster(config: VerlConfig) -> bool:
    """Whether `start_ray` would join a cluster, which has the resources that it was started with."""
    return _is_there(OmegaConf.select(config, "ray_kwargs.ray_init.address") or os.environ.get("RAY_ADDRESS"))


def _is_there(address: str | None) -> bool:
    return bool(address) and address != "local"


@contextmanager
def _logical_gpus() -> Iterator[None]:
    """Let Ray start on CPU with the GPUs that a recipe declares, which are logical, whatever devices the user shows.

    `CUDA_VISIBLE_DEVICES=""` says that there is no GPU, and Ray refuses to declare more GPUs than it shows.
    """
    from ray._private.accelerators import get_accelerator_manager_for_resource

    name = get_accelerator_manager_for_resource("GPU").get_visible_accelerator_ids_env_var()
    value = os.environ.pop(name, None) if cpu.is_chosen() else None
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def explain_ray_error(error: BaseException, address: str | None) -> str:
    """What an error of `ray.init` means and what fixes it, in one line."""
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
    return f"{where} cannot be joined: {line}" if address else f"Ray does not start: {line}{_remedy(error)}"


def _remedy(error: BaseException) -> str:
    """What to do about an error of a Ray that starts here, as the end of a sentence; empty if it says so itself."""
    text = str(error)
    if isinstance(error, UnicodeError):
        return "; a path has letters that this locale cannot write: set PYTHONUTF8=1 and LC_ALL=C.UTF-8"
    if "VISIBLE_DEVICES contains" in text:
        return "; lower ray_kwargs.ray_init.num_gpus, or let the variable show as many GPUs"
    if "AF_UNIX" in text:
        return f"; set RAY_TMPDIR to a shorter folder, such as {SHORT_FOLDER}"
    if isinstance(error, OSError):
        home = os.path.expanduser("~")
        if error.filename and f"{error.filename}{os.sep}".startswith(f"{home}{os.sep}"):
            return f"; HOME={home} must be a folder that can be written: set HOME to one"
        return "; set RAY_TMPDIR to a folder that can be written"
    return ""


def _check_socket_paths(temp_dir: str | None) -> None:
    """The sockets of Ray, and those of vLLM's processes, have paths that Linux takes."""
    from ray._common.utils import get_default_system_temp_dir

    if temp_dir is None:
        folder, room = get_default_system_temp_dir(), LONGEST_SOCKET_PATH - RAYS_PART
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        if len(os.fsencode(folder)) > room:
            raise UserError(
                f"{name}={folder}: {len(os.fsencode(folder))} bytes; Ray's sockets leave {room} for its folder: set "
                f"RAY_TMPDIR to a shorter one, such as {SHORT_FOLDER}"
            )
    folder = os.environ.get("VLLM_RPC_BASE_PATH") or tempfile.gettempdir()
    room = LONGEST_SOCKET_PATH - VLLMS_PART
    if len(os.fsencode(folder)) > room:
        raise UserError(
            f"TMPDIR={folder}: {len(os.fsencode(folder))} bytes; vLLM's sockets leave {room} for its folder: set "
            f"TMPDIR to a shorter one, such as {SHORT_FOLDER}"
        )


def _check_answers(address: str) -> None:
    """Something listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # 'auto': Ray looks for it on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_DEADLINE_S).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address} ({error.strerror or error}); start it with `ray start "
            "--head` there, or unset RAY_ADDRESS to start Ray on this machine"
        ) from None


@contextmanager
def ray_cluster(
    run: RunConfig,
    num_gpus: int,
    *,
    turns: Iterable[Iterable[TeacherSettings]] | None = None,
    is_deterministic: bool = False,
) -> Iterator[None]:
    """Ray as the recipe starts it; a cluster that is there already (a submitted job, `RAY_ADDRESS`) is used as it is
    and left running.

    Args:
        run: a composed recipe.
        num_gpus: GPUs of all replicas; on a machine without GPUs Ray is told that it has so many.
        turns: the models that write at the same time and share the cores of a CPU, turn by turn; all of them if None.
        is_deterministic: one thread an engine on CPU.
    """
    import ray

    if ray.is_initialized():
        resolve(run.verl)
        yield
        return
    num_together = num_gpus if turns is None else max((num_gpus_of(models) for models in turns), default=0)
    share_cores(run.verl, num_together, is_deterministic=is_deterministic)
    start_ray(
        run,
        log_to_driver=False,
        logging_level=logging.WARNING,
        **({"num_gpus": num_gpus} if run.trainer.is_cpu else {}),
    )
    resolve(run.verl)
    try:
        yield
    finally:
        ray.shutdown()
