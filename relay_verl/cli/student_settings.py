"""The settings under which a student that somebody trained is measured: those of its `relay.json`.

Order, the first that says something: the command line's changes; the recipe that the command line names; the student's
`relay.json`; the recipe that is taken where none is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from relay_verl.checkpoints.relay_file import RELAY_FILE, RelayFile, find_relay_file
from relay_verl.cli.options import compose_recipe, name_recipe
from relay_verl.errors import UserError
from relay_verl.run_config import RunConfig

_TEMPLATE = "data.apply_chat_template_kwargs"
_THINKING = "enable_thinking"


def compose_for_student(
    student: str | None,
    recipe: str | None,
    overrides: Sequence[str] | None,
    config_dir: Path | None,
    *,
    thinks: bool = False,
) -> tuple[RunConfig, str]:
    """The recipe of an evaluation with what the student's `relay.json` says, and the policy that it says.

    Args:
        student: a folder, a hub id or an endpoint's URL.
        recipe, overrides, config_dir: as for `compose_recipe`.
        thinks: whether `--thinking` was given: it sets data.apply_chat_template_kwargs.enable_thinking.

    Raises:
        UserError: as `compose_recipe`, or the `relay.json` is damaged; names the file and the key. Or `--thinking`
            next to that key.
    """
    run, policy = _compose(student, recipe, overrides, config_dir)
    if not thinks:
        return run, policy
    if stray := [word for word in overrides or () if f"{_TEMPLATE}.{_THINKING}" in word]:
        raise UserError(f"--thinking sets {_TEMPLATE}.{_THINKING}=true, and {stray[0]} sets it, too; give one")
    return run.changed(_TEMPLATE, {**run.prompts.template, _THINKING: True}), policy


def _compose(
    student: str | None, recipe: str | None, overrides: Sequence[str] | None, config_dir: Path | None
) -> tuple[RunConfig, str]:
    """The same without `--thinking`."""
    relay = find_relay_file(student) if student else None
    if relay is None:
        return compose_recipe(recipe, overrides, config_dir), RelayFile.policy
    name, changes = name_recipe(recipe, overrides or ())
    if name is not None:
        return compose_recipe(recipe, overrides, config_dir), relay.policy
    typer.echo(f"{student}: settings of its {RELAY_FILE}", err=True)
    run = compose_recipe(None, [*_overrides_of(relay), *changes], config_dir)
    if not any(_TEMPLATE in change for change in changes):
        run = run.changed(_TEMPLATE, dict(relay.template.chat_template_kwargs))
    return run, relay.policy


def _overrides_of(relay: RelayFile) -> list[str]:
    """What the file says, as changes to a recipe. All are numbers and words of ours: nothing in it needs a quote."""
    limits, teacher = relay.limits, relay.sampling.teacher.parameters()
    most = "null" if limits.max_calls is None else limits.max_calls
    return [
        f"data.max_response_length={limits.max_response_tokens}",
        f"relay.max_calls={most}",
        f"relay.max_tokens_per_call={limits.max_tokens_per_call}",
        f"relay.fixed_command={limits.fixed_command}",
        *(f"relay.teacher.{name}={value}" for name, value in teacher.items()),
    ]
