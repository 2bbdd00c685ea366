"""What verl loads (entry point `verl.plugins`): importing this module registers everything, once.

verl imports it in the driver and in every Ray worker, and reports a plugin that fails at DEBUG only; this one says it
on standard error. Each registration waits until verl itself imports the registry, so that a process pays only for what
it uses.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any

from relay_verl.versions import TESTED, is_tested

TESTED_VERL = tuple({packages["verl"] for packages in TESTED.values()})


def _import_after(registry: str, module: str) -> None:
    """Import `module`, which registers itself, as soon as `registry` is imported."""

    from wrapt import register_post_import_hook

    def hook(_: Any) -> None:
        importlib.import_module(module)

    register_post_import_hook(hook, registry)


def _check_before(module: str, function: str, check: Callable[[Any], None]) -> None:
    """Check the composed config in front of the function of verl's that is given it."""
    from wrapt import register_post_import_hook

    from relay_verl.preflight.training import install_check

    register_post_import_hook(lambda imported: install_check(imported, function, check), module)


def _install_after(module: str, installer: str, function: str = "install") -> None:
    """Let a `function` of `installer` change verl's `module` as soon as that is imported."""
    from wrapt import register_post_import_hook

    def hook(imported: Any) -> None:
        getattr(importlib.import_module(installer), function)(imported)

    register_post_import_hook(hook, module)


def _register() -> None:
    from relay_verl import cpu, logs
    from relay_verl.cpu import threads
    from relay_verl.models import attention
    from relay_verl.preflight import training

    logs.install()
    version = importlib.metadata.version("verl")
    if not any(is_tested("verl", version, tested) for tested in TESTED_VERL):
        print(f"relay_verl: verl {version} is not tested with it; tested: {', '.join(TESTED_VERL)}", file=sys.stderr)
    if cpu.is_chosen():
        from relay_verl.cpu import platform, shims  # noqa: F401 (importing the platform registers it)

        shims.apply()
    attention.register_resolver()
    threads.register_resolver()
    _check_before("verl.utils.config", "validate_config", training.check_training)
    _check_before("verl.utils.device", "auto_set_device", training.check_sft_config)
    _install_after("verl.trainer.ppo.v1.trainer_base", "relay_verl.trainer.early_teachers")
    _install_after("verl.trainer.ppo.v1.trainer_base", "relay_verl.trainer.saving")
    _install_after("verl.trainer.ppo.v1.trainer_base", "relay_verl.trainer.teacher_watch")
    _install_after("verl.workers.rollout.router", "relay_verl.trainer.light_balancer")
    rollout, socket = "verl.workers.rollout.vllm_rollout", "relay_verl.trainer.weight_socket"
    _install_after(f"{rollout}.vllm_rollout", socket, "install_sender")
    _install_after(f"{rollout}.vllm_async_server", socket, "install_receiver")
    _install_after(f"{rollout}.bucketed_weight_transfer", socket, "install_deadline")
    _install_after("verl.utils.checkpoint.checkpoint_handler", "relay_verl.trainer.warmup_record")
    _install_after("verl.utils.tracking", "relay_verl.checkpoints.metrics_log")
    _install_after("verl.utils.tracking", "relay_verl.trainer.step_line")
    losses, call_free = "verl.trainer.distillation", "relay_verl.trainer.call_free_loss"
    _install_after(f"{losses}.losses", call_free, "install_name")
    _install_after(f"{losses}.fsdp.losses", call_free)
    for schedule in ("verl.workers.config.optimizer", "verl.workers.engine.fsdp.transformer_impl"):
        _install_after(schedule, "relay_verl.trainer.linear_schedule")
    _import_after("verl.experimental.agent_loop", "relay_verl.trainer.agent_loop")
    _import_after("verl.experimental.reward_loop.reward_manager", "relay_verl.trainer.reward_manager")


try:
    _register()
except Exception as error:
    print(f"relay_verl: the plugin failed to load: {type(error).__name__}: {error}", file=sys.stderr)
    raise
