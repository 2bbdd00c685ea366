"""All checks of a command line of verl's trainers, the failures with the rest; training stops at the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from relay_verl.preflight.check import Check, CheckWarning, Doctor, Outcome, Status
from relay_verl.preflight.ray_checks import Cluster
from relay_verl.preflight.registry import CLUSTER, DEEP, INSTALLATION, MACHINE, RECIPE, WARMUP, WARMUP_MACHINE
from relay_verl.recipes.compose import compose_overrides, print_warning
from relay_verl.recipes.overrides import the_recipe
from relay_verl.recipes.recipe import defaults_of
from relay_verl.run_config import RunConfig, VerlConfig
from relay_verl.secrets import hide_in_text

ANY_CLUSTER = tuple(check for check in CLUSTER if check.name in ("Ray", "Ray workers"))
"""What can be said of a cluster without a recipe."""


def examine(overrides: Sequence[str], *, with_ray: bool = True, deep: bool = False) -> Iterator[Outcome]:
    """The outcome of each check that these overrides call for; the installation's alone, and Ray's, if there are none.

    Ray is started as the trainer would start it, and ended with the last outcome.

    Args:
        overrides: what the trainer would be given.
        with_ray: run the checks that need Ray, too.
        deep: read every byte of the checkpoint to resume at, too.
    """
    doctor = Doctor()
    yield from doctor.run(INSTALLATION)
    composed: list[VerlConfig] = []

    def compose() -> str:
        warnings: list[str] = []
        composed.append(compose_for_trainer(overrides, warnings.append))
        if warnings:
            return CheckWarning(hide_in_text(warnings[0]))
        return "for verl.trainer.main_ppo" if "actor_rollout_ref" in composed[0] else "for verl.trainer.sft_trainer"

    composing = Check("composition", compose, after=("Hydra's search path",))
    for outcome in doctor.run([composing]):
        if overrides or outcome.status is not Status.PASSED:
            yield outcome
    if not composed:
        yield from doctor.skip([*RECIPE, *MACHINE, *CLUSTER], "composition failed")
        return
    (config,) = composed
    run = RunConfig(config)
    if "actor_rollout_ref" not in config:
        yield from doctor.run(WARMUP, run)
        yield from doctor.run(WARMUP_MACHINE, run)
        return
    in_ray: Sequence[Check] = ANY_CLUSTER
    if run.has_relay or overrides:
        yield from doctor.run([*RECIPE, *DEEP] if deep else RECIPE, run)
        yield from doctor.run(MACHINE, run)
        in_ray = CLUSTER
    if not with_ray:
        yield from doctor.skip(in_ray, "--no-ray")
        return
    yield from _examine_cluster(doctor, in_ray, run)


def compose_for_trainer(overrides: Sequence[str], warn: Callable[[str], None] = print_warning) -> VerlConfig:
    """The config as the trainer that these overrides are for composes it: a warm-up recipe is for verl's SFT trainer.

    Args:
        overrides: as typed.
        warn: takes the warning where overrides undo what the recipe is about.

    Raises:
        UserError: Hydra refuses them.
    """
    recipe = the_recipe(overrides)
    return compose_overrides(overrides, defaults_of(recipe) if recipe else "ppo_trainer", warn)


def _examine_cluster(doctor: Doctor, checks: Sequence[Check], run: RunConfig) -> Iterator[Outcome]:
    import ray

    was_there = ray.is_initialized()
    try:
        yield from doctor.run(checks, run, Cluster(run))
    finally:
        if not was_there:
            ray.shutdown()
