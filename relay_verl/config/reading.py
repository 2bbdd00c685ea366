"""Reads a `relay:` node into settings: every error names the key, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from relay_verl.config.settings import RelaySettings
from relay_verl.config.teacher import TeacherSettings
from relay_verl.config.validation import fields_at, validate
from relay_verl.engines.address import check_address
from relay_verl.errors import UserError, as_user_error
from relay_verl.policies import make_policy


def read_settings(node: Mapping[str, Any] | None) -> RelaySettings:
    """The `relay:` node of a composed config as settings.

    A list in `teacher` is read as `teachers`. Hydra merges no list into a mapping, which the recipes have there, so
    recipes and command lines say `teachers`.

    Raises:
        UserError: an unknown key or a bad value.
    """
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise UserError(f"relay: {str(error).splitlines()[0]}") from None
    if plain is not None and not isinstance(plain, Mapping):
        allowed = ", ".join(fields_at(RelaySettings, []))
        raise UserError(f"relay: {plain!r} is not a group of settings; allowed: {allowed}")
    values: dict[str, Any] = dict(plain or {})  # type: ignore[arg-type]
    if isinstance(values.get("teacher"), (list, tuple)):
        if values.get("teachers"):
            raise UserError("relay.teacher: a list, and relay.teachers is given too; give one")
        values["teachers"] = values.pop("teacher")
        if not values["teachers"]:
            raise UserError("relay.teacher: []: an empty list; give at least one teacher")
    settings = validate(RelaySettings, values, "relay.")
    length = make_policy(settings.policy).fixed_length()
    if length is not None and length > settings.max_tokens_per_call:
        raise UserError(
            f"relay.policy: {settings.policy}: a call delivers at most relay.max_tokens_per_call="
            f"{settings.max_tokens_per_call} tokens; raise that, or fix a lower number"
        )
    _check_teachers(settings)
    _check_prices(settings)
    return settings


def check_endpoint(key: str, url: str, api_key_env: str) -> None:
    """Raise UserError, which names `key`, unless `url` can be an endpoint's address and holds no secret."""
    with as_user_error(ValueError, key):
        check_address(url, api_key_env)


def _check_teachers(settings: RelaySettings) -> None:
    """Raise UserError on what one field alone does not show."""
    listed = {f"relay.teachers.{index}": teacher for index, teacher in enumerate(settings.teachers)}
    for key, teacher in {"relay.teacher": settings.teacher, **listed}.items():
        if teacher.path is not None and teacher.base_url is not None:
            raise UserError(f"{key}: both path={teacher.path!r} and base_url={teacher.base_url!r} are given; give one")
        if teacher.engine is not None and (other := teacher.path or teacher.base_url):
            raise UserError(f"{key}: both engine={teacher.engine!r} and {other!r} are given; give one")
        _check_api(key, teacher)
        if teacher.base_url is not None:
            check_endpoint(f"{key}.base_url", teacher.base_url, teacher.api_key_env)
        if key in listed and not teacher.is_given:
            raise UserError(f"{key}: no teacher given; set its path (a model) or base_url (an endpoint)")
        if teacher.tokenizer is not None and not teacher.text_bridge:
            raise UserError(f"{key}.tokenizer: {teacher.tokenizer!r} is for {key}.text_bridge=true")
        if teacher.text_bridge and teacher.base_url is not None and teacher.tokenizer is None:
            raise UserError(
                f"{key}.tokenizer: text_bridge=true needs the tokenizer of {teacher.base_url} (a folder or hub id)"
            )
    group = listed or {"relay.teacher": settings.teacher}
    if not any(teacher.weight > 0 for teacher in group.values()):
        raise UserError(f"{', '.join(f'{key}.weight' for key in group)}: 0; at least one weight must be above 0")
    labels: dict[str, str] = {}
    for key, teacher in listed.items():
        if other := labels.get(teacher.label):
            raise UserError(f"{key}.name: {teacher.label!r} is what {other} is called too; give each a name of its own")
        labels[teacher.label] = key
    if settings.needs_teacher and not all(teacher.is_given for teacher in group.values()):
        raise UserError(
            "relay.teacher: no teacher given; set relay.teacher.path (a model) or relay.teacher.base_url (an "
            "endpoint), or relay.max_calls=0 for training without one"
        )


def _check_api(key: str, teacher: TeacherSettings) -> None:
    """Raise UserError on a chat API that is not an endpoint, and on keys that only a chat API reads."""
    if teacher.reads_messages:
        if other := teacher.path or teacher.engine:
            raise UserError(f"{key}.api: chat is for an endpoint, {key}.base_url; {other!r} is given")
        if teacher.text_bridge:
            raise UserError(f"{key}.text_bridge: a teacher of api=chat gives text without it; leave it out")
        return
    for name in ("chat_prefix", "chat_fallback"):
        value = getattr(teacher, name)
        if value != getattr(TeacherSettings, name):
            raise UserError(f"{key}.{name}: {value} is for {key}.api=chat")


def _check_prices(settings: RelaySettings) -> None:
    """Raise UserError on prices that say too little for what they are for."""
    prices = settings.prices.price_list()
    if settings.reward.kind != "price":
        return
    if prices is None or not (prices.teacher.input or prices.teacher.output):
        state = "no price" if prices is None else "0"
        raise UserError(
            f"relay.prices.teacher: {state}, but relay.reward.kind=price divides by what the teacher alone would cost; "
            "set relay.prices.teacher.preset, or input and output"
        )
