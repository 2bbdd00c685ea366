"""Whether prompts and responses fit: rows within `data.max_prompt_length`, both within the context, that within the
models.

verl drops longer prompts as it reads its files, which may leave too few of them for a batch, and cuts a response short
where the context ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.models.pretrained import load_config, trusts
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.data_checks import kept_rows, local_files
from relay_verl.preflight.rows import checked_rows
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import chat_ids

MAX_MEASURED = 1000
"""Rows of a file whose prompts are measured, from its beginning."""


def check_lengths(run: RunConfig) -> CheckWarning | str:
    """Enough prompts are short enough, and the engines' context holds a prompt and its response.

    Raises:
        UserError: too few prompts are, or the context is longer than a model's.
    """
    warnings = [_check_context(run)]
    longest = OmegaConf.select(run.verl, "data.max_prompt_length")
    if longest is None:
        return "not measured"
    tokenizer = tokenizer_at(run.prompts, run.prompts.tokenizer_of(run.verl.actor_rollout_ref.model.path))
    for key, needed in (("train_files", run.data.batch_size or 1), ("val_files", 1)):
        names = run.data.files[key]
        if names and len(local_files(run.data, key)) == len(names):
            warnings.append(_check_prompts(run, key, names, tokenizer, longest, needed))
    given = [warning for warning in warnings if warning]
    return CheckWarning("; ".join(given)) if given else f"prompts of at most {longest} tokens"


def _check_prompts(run: RunConfig, key: str, names: Sequence[str], tokenizer: Any, longest: int, needed: int) -> str:
    """Enough prompts of these files are short enough; gives a warning where longer ones are kept.

    Raises:
        UserError: all rows were measured and fewer than `needed` fit, or not a single one does.
    """
    template, threshold = run.prompts.template, run.data.min_pass_rate
    num_fitting, num_measured, is_whole, first = 0, 0, True, ""
    for name in names:
        kept = set(kept_rows(name, threshold)) if threshold and key == "train_files" else None
        rows = enumerate(checked_rows(name, f"data.{key}: {name}", run.data.prompt_key))
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
    if first and not run.verl.data.get("filter_overlong_prompts", True):
        return f"data.filter_overlong_prompts=false: data.{key}: {first}, more than data.max_prompt_length={longest}"
    return ""


def _check_context(run: RunConfig) -> str:
    """The engines' context holds a prompt and a response; gives a warning if it does not.

    Raises:
        UserError: it is longer than a model takes.
    """
    context = run.lengths.max_context
    if context is None:
        return ""
    key = f"actor_rollout_ref.rollout.max_model_len={context}"
    models = {"actor_rollout_ref.model.path": run.verl.actor_rollout_ref.model.path}
    for teacher_key, teacher in run.teachers.items():
        if teacher.path is not None:
            models[f"{teacher_key}.path"] = teacher.path
    for model_key, path in models.items():
        positions = _max_positions(path, trusts(run.prompts))
        if positions is not None and context > positions:
            raise UserError(f"{key}: {model_key}={path} has {positions} positions: set it to at most {positions}")
    lengths = [OmegaConf.select(run.verl, f"data.max_{part}_length") for part in ("prompt", "response")]
    if None not in lengths and sum(lengths) > context:
        return (
            f"{key}: data.max_prompt_length={lengths[0]} and data.max_response_length={lengths[1]} are more: the "
            "response to a long prompt is cut short"
        )
    return ""


def _max_positions(path: str, is_trusted: bool) -> int | None:
    """Positions of the model at a folder or hub id; None if unknown."""
    if "://" in path:
        return None
    try:
        config = load_config(path, is_trusted)
    except (OSError, ValueError):  # who loads the model says what is wrong with it
        return None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None
