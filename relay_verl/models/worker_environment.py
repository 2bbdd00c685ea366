"""What the driver's environment says reaches every Ray worker of the run: on a running cluster, and on other nodes.

Ray gives workers the environment of the node they run on, which is the driver's only where the driver started Ray. So
a start sends the variables that recipes, engines, the hub and loggers read: `CARRIED`, and those that `api_key_env`
names.

They travel in Ray's `worker_process_setup_hook`, a function that Ray runs in each worker before any code of the run.
Its pickle stays in Ray's control store until the cluster ends, where whoever may connect to the cluster can read it;
listings of jobs and logs show nothing but its key. The alternatives are worse: `runtime_env.env_vars` are printed by
`ray list`, by the dashboard and in the agents' logs; an actor that hands the values out can die, and is missing when a
worker imports verl; a file is on one node.

Invariant: a variable that `ray_kwargs.ray_init.runtime_env.env_vars` sets has that value, not the driver's; one whose
name says that it is secret leaves `env_vars` and travels like the others.

What describes one node stays there: CUDA_VISIBLE_DEVICES, which Ray sets for each worker, NCCL's and vLLM's addresses,
paths of libraries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relay_verl.config import RelaySettings
from relay_verl.secrets import is_secret_name

CARRIED = re.compile(
    r"(RELAY|HF|HUGGING_?FACE(_HUB)?|TRANSFORMERS|VERL|WANDB|MLFLOW|SWANLAB|TENSORBOARD|TRACKIO|CLEARML)_\w+"
    r"|((HTTPS?|ALL|NO)_PROXY)|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE",
    re.IGNORECASE,
)
"""Names of the variables that are sent; proxies are read in both spellings."""


def carried_variables(
    environment: Mapping[str, str], key_names: Iterable[str] = (), without: Iterable[str] = ()
) -> dict[str, str]:
    """What a driver with this environment sends to its workers.

    Args:
        environment: the driver's.
        key_names: further names: the variables that hold the endpoints' keys.
        without: names that the runtime environment sets itself.
    """
    excluded, keys = set(without), set(key_names)
    return {
        name: value
        for name, value in environment.items()
        if (name in keys or CARRIED.fullmatch(name)) and name not in excluded
    }


def carry(
    runtime_env: Mapping[str, Any], environment: Mapping[str, str], key_names: Iterable[str] = ()
) -> dict[str, Any]:
    """A runtime environment of `ray.init` that also sends the driver's variables; a hook that it has runs after that.

    Args:
        runtime_env: as the config has it, with `env_vars`.
        environment: the driver's.
        key_names: see `carried_variables`.
    """
    given = dict(runtime_env.get("env_vars") or {})
    shown = {name: value for name, value in given.items() if not is_secret_name(name)}
    hidden = {name: value for name, value in given.items() if is_secret_name(name)}
    variables = carried_variables(environment, key_names, without=given) | hidden
    hook = runtime_env.get("worker_process_setup_hook") or _hook_of_submission(environment)
    return {**runtime_env, "env_vars": shown, "worker_process_setup_hook": make_hook(variables, hook)}


def make_hook(variables: Mapping[str, str], after: str | Callable[[], None] | None = None) -> Callable[[], None]:
    """The function that sets `variables` in a worker, then runs the hook `after`: a function, or the name of one.

    It is made inside another, so that Ray ships it whole: relay_verl need not be there.
    """
    values = dict(variables)

    def set_relay_environment() -> None:
        import importlib
        import os

        os.environ.update(values)
        function = after
        if isinstance(function, str):
            module, _, name = function.rpartition(".")
            function = getattr(importlib.import_module(module), name)
        if function is not None:
            function()

    return set_relay_environment


def _hook_of_submission(environment: Mapping[str, str]) -> str | None:
    """The hook that a submitted job has by `ray job submit`, which takes the name of a function."""
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    submitted = json.loads(environment.get(RAY_JOB_CONFIG_JSON_ENV_VAR) or "{}").get("runtime_env") or {}
    hook = submitted.get("worker_process_setup_hook")
    return hook if isinstance(hook, str) else None


def key_variables(settings: RelaySettings) -> set[str]:
    """Names of the environment variables that hold the endpoints' keys."""
    return {teacher.api_key_env for teacher in (settings.teacher, *settings.teachers)}
