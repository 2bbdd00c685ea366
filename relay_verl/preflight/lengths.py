"""Whether prompts and responses fit: rows within `data.max_prompt_length`, both within the context, that within the
models.

verl drops longer prompts as it reads its files, which may leave too few of them for a batch, and cuts a response short
where the context ends.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from omegaconf import OmegaConf

from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.models.tokenizers import template_of, tokenizer_at, tokenizer_path_of
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.data_checks import file_names, kept_rows, local_files
from relay_verl.preflight.rows import checked_rows
from relay_verl.tokenization import chat_ids

MAX_MEASURED = 1000
"""Rows of a file whose prompts are measured, from its beginning."""


def check_lengths(config: Any) -> CheckWarning | str:
    """Enough prompts are short enough, and the engines' context holds a prompt and its response.

    Raises:
        UserError: too few prompts are, or the context is longer than a model's.
    """
    warnings = [_check_context(config)]
    longest = OmegaConf.select(config, "data.max_prompt_length")
    if longest is None:
        return "not measured"
    tokenizer = tokenizer_at(config, tokenizer_path_of(config, config.actor_rollout_ref.model.path))
    for key, needed in (("train_files", config.data.train_batch_size), ("val_files", 1)):
        names = file_names(config, key)
        if names and len(local_files(config, key)) == len(names):
            warnings.append(_check_prompts(config, key, names, tokenizer, longest, needed))
    given = [warning for warning in warnings if warning]
    return CheckWarning("; ".join(given)) if given else f"prompts of at most {longest} tokens"


def _check_prompts(config: Any, key: str, names: list[str], tokenizer: Any, longest: int, needed: int) -> str:
    """Enough prompts of these files are short enough; gives a warning where longer ones are kept.

    Raises:
        UserError: all rows were measured and fewer than `needed` fit, or not a single one does.
    """
    template, threshold = template_of(config), config.data.get("min_pass_rate") or 0
    num_fitting, num_measured, is_whole, first = 0, 0, True, ""
    for name in names:
        kept = set(kept_rows(name, threshold)) if threshold and key == "train_files" else None
        rows = enumerate(checked_rows(name, f"data.{key}: {name}", config.data.prompt_key))
        wanted = ((index, row) for index, row in rows if kept is None or index in kept)
        for index, row in islice(wanted, MAX_MEASURED):
            length = len(chat_ids(tokenizer, row["prompt"], template))
            num_measured += 1
            num_fitting += length <= longest
            if length > longest and not first:
                first = f"{name}: row {index + 1} has a prompt of {length} tokens"
        is_whole = is_whole and next(wanted, None) is None
    if num_fitting < needed and (is_whole or not num_fitting):
        raise UserError(
            f"data.max_prompt_length={longest}: of {num_measured} prompts of data.{key} {num_fitting} fit, and at "
            f"least {needed} must; {first}: raise data.max_prompt_length, or leave such rows out"
        )
    if first and not config.data.get("filter_overlong_prompts", True):
        return f"data.filter_overlong_prompts=false: data.{key}: {first}, more than data.max_prompt_length={longest}"
    return ""


def _check_context(config: Any) -> str:
    """The engines' context holds a prompt and a response; gives a warning if it does not.

    Raises:
        UserError: it is longer than a model takes.
    """
    context = OmegaConf.select(config, "actor_rollout_ref.rollout.max_model_len")
    if context is None:
        return ""
    key, settings = f"actor_rollout_ref.rollout.max_model_len={context}", read_settings(config.relay)
    models = {"actor_rollout_ref.model.path": config.actor_rollout_ref.model.path}
    for teacher_key, teacher in settings.active_teachers.items() if settings.needs_teacher else ():
        if teacher.path is not None:
            models[f"{teacher_key}.path"] = teacher.path
    for model_key, path in models.items():
        positions = _max_positions(path, bool(config.actor_rollout_ref.model.get("trust_remote_code", False)))
        if positions is not None and context > positions:
            raise UserError(f"{key}: {model_key}={path} has {positions} positions: set it to at most {positions}")
    lengths = [OmegaConf.select(config, f"data.max_{part}_length") for part in ("prompt", "response")]
    if None not in lengths and sum(lengths) > context:
        return (
            f"{key}: data.max_prompt_length={lengths[0]} and data.max_response_length={lengths[1]} are more: the "
            "response to a long prompt is cut short"
        )
    return ""


def _max_positions(path: str, trust_remote_code: bool) -> int | None:
    """Positions of the model at a folder or hub id; None if unknown."""
    from transformers import AutoConfig

    if "://" in path:
        return None
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):  # who loads the model says what is wrong with it
        return None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None
