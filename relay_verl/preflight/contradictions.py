"""Keys that cancel each other, or that verl no longer reads: what was asked for would be left out without a word.

Each entry says what verl 0.9.1's V1 trainer does instead. Remove one when verl refuses the same by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.preflight.check import CheckWarning
from relay_verl.run_config import VerlConfig

LEGACY: Mapping[str, str] = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model": "reward",
    "sandbox_fusion": "reward.sandbox_fusion",
}
"""Groups of verl's older configs, which it still composes and its V1 trainer does not read, with what it reads."""


def check_contradictions(config: VerlConfig) -> CheckWarning | str:
    """No key cancels another one.

    Raises:
        UserError: one does; names both, and what to set instead.
    """
    for contradiction in _contradictions(config):
        raise UserError(contradiction)
    warnings = list(_warnings(config))
    return CheckWarning("; ".join(warnings)) if warnings else "none"


def _contradictions(config: VerlConfig) -> Iterator[str]:
    def value_of(key: str) -> Any:
        return OmegaConf.select(config, key)

    # verl looks at val_only only behind the validation before the training
    if value_of("trainer.val_only") and value_of("trainer.val_before_train") is False:
        yield (
            "trainer.val_only=true: not with trainer.val_before_train=false, which leaves the validation out and "
            "trains: set trainer.val_before_train=true"
        )
    mode, path = value_of("trainer.resume_mode"), value_of("trainer.resume_from_path")
    if path and mode in ("auto", "disable"):
        yield (
            f"trainer.resume_from_path={path}: not read with trainer.resume_mode={mode}: set "
            "trainer.resume_mode=resume_path, or trainer.resume_from_path=null"
        )
    for group, instead in LEGACY.items():
        node = OmegaConf.select(config, group)
        for key, value in _given(node, group):
            shown = str(value).lower() if isinstance(value, bool) else value
            yield (
                f"{key}={shown}: verl's V1 trainer does not read {group}, which is of older versions: set it to null; "
                f"{instead} is what it reads"
            )
    url = value_of("reward.sandbox_fusion.url")
    if url:
        yield f"reward.sandbox_fusion.url={url}: relay grades by rule and runs no code there: set it to null"


def _warnings(config: VerlConfig) -> Iterator[str]:
    key = "actor_rollout_ref.rollout.val_kwargs"
    num_samples, is_sampled = (OmegaConf.select(config, f"{key}.{name}") for name in ("n", "do_sample"))
    if (num_samples or 1) > 1 and is_sampled is False:
        yield (
            f"{key}.n={num_samples}: with {key}.do_sample=false these are {num_samples} times the same greedy "
            f"response: set {key}.n=1, or {key}.do_sample=true"
        )
    if head := OmegaConf.select(config, "relay.defer.head"):
        yield f"relay.defer.head={head}: for `relay-verl eval` and its policies deferred_TAU; training asks no head"
    save_freq = OmegaConf.select(config, "trainer.save_freq")
    if save_freq is not None and save_freq <= 0 and not OmegaConf.select(config, "trainer.val_only"):
        yield f"trainer.save_freq={save_freq}: no checkpoint is written, not even the last one: set a number of steps"


def _given(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a group that are not null, by their dotted keys."""
    if node is None:
        return
    for name, value in node.items():
        if OmegaConf.is_dict(value):
            yield from _given(value, f"{prefix}.{name}")
        elif value is not None:
            yield f"{prefix}.{name}", value
