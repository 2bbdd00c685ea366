"""All checks of a command line of verl's trainers, the failures with the rest; training stops at the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay_verl.preflight.check import Check, Examination, Outcome, Status
from relay_verl.preflight.ray_checks import Cluster
from relay_verl.preflight.registry import CLUSTER, INSTALLATION, MACHINE, RECIPE, WARMUP, WARMUP_MACHINE
from relay_verl.preflight.training import is_warmup
from relay_verl.run_config import RunConfig, VerlConfig

ANY_CLUSTER = tuple(check for check in CLUSTER if check.name in ("Ray", "Ray workers"))
"""What can be said of a cluster without a recipe."""


def examine(overrides: Sequence[str], *, with_ray: bool = True) -> Iterator[Outcome]:
    """The outcome of each check that these overrides call for; the installation's alone, and Ray's, if there are none.

    Ray is started as the trainer would start it, and ended with the last outcome.
    """
    examination = Examination()
    yield from examination.run(INSTALLATION)
    composed: list[VerlConfig] = []

    def compose() -> str:
        composed.append(compose_for_trainer(overrides))
        return "for verl.trainer.main_ppo" if "actor_rollout_ref" in composed[0] else "for verl.trainer.sft_trainer"

    composing = Check("composition", compose, after=("Hydra's search path",))
    for outcome in examination.run([composing]):
        if overrides or outcome.status is not Status.PASSED:
            yield outcome
    if not composed:
        yield from examination.skip([*RECIPE, *MACHINE, *CLUSTER], "composition failed")
        return
    (config,) = composed
    run = RunConfig(config)
    if "actor_rollout_ref" not in config:
        yield from examination.run(WARMUP, run)
        yield from examination.run(WARMUP_MACHINE, run)
        return
    in_ray: Sequence[Check] = ANY_CLUSTER
    if run.has_relay or overrides:
        yield from examination.run(RECIPE, run)
        yield from examination.run(MACHINE, run)
        in_ray = CLUSTER
    if not with_ray:
        yield from examination.skip(in_ray, "--no-ray")
        return
    yield from _examine_cluster(examination, in_ray, run)


def compose_for_trainer(overrides: Sequence[str]) -> VerlConfig:
    """The config as the trainer that these overrides are for composes it: a warm-up recipe is for verl's SFT trainer.

    Raises:
        UserError: Hydra refuses them.
    """
    from relay_verl.recipes.compose import compose_overrides

    for_sft = any(override.startswith("+recipe=warmup") for override in overrides)
    config = compose_overrides(overrides, "sft_trainer_engine" if for_sft else "ppo_trainer")
    return compose_overrides(overrides, "sft_trainer_engine") if not for_sft and is_warmup(config) else config


def _examine_cluster(examination: Examination, checks: Sequence[Check], run: RunConfig) -> Iterator[Outcome]:
    import ray

    was_there = ray.is_initialized()
    try:
        yield from examination.run(checks, run, Cluster(run))
    finally:
        if not was_there:
            ray.shutdown()
