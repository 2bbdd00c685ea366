"""A student with a defer head (`relay_verl.defer`): whether the two fit, before any model loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from relay_verl.config import DeferSettings
from relay_verl.defer.engine_head import ARCHITECTURES, EngineHead
from relay_verl.defer.head_folder import read_info
from relay_verl.defer.head_info import HeadKind
from relay_verl.defer.reserved_id import find_reserved_id, find_step_ends
from relay_verl.errors import UserError, as_user_error
from relay_verl.models.address import is_elsewhere
from relay_verl.models.pretrained import load_config, trusts
from relay_verl.models.vocabulary import read_vocabulary
from relay_verl.run_config import PromptSettings, RunConfig
from relay_verl.tokenization import TokenBytes

_ROLLOUT = "actor_rollout_ref.rollout"


def read_engine_head(settings: DeferSettings, student: str, tokenizer: Any, prompts: PromptSettings) -> EngineHead:
    """What the student's engine is told of its head.

    Args:
        settings: which head, which is given.
        student: folder or hub id.
        tokenizer: the student's.
        prompts: how the student's files are read.

    Raises:
        UserError: the folder has no head, it is another student's, the student's class has no variant with a head, no
            row of its embedding is free, or the student does not run here.
    """
    assert settings.head is not None
    if is_elsewhere(student):
        raise UserError(f"relay.defer.head: {settings.head}: the student {student} does not run here; give a model")
    with as_user_error((OSError, ValueError), student):
        config = load_config(student, trusts(prompts)).get_text_config()
    info = read_info(settings.head, hidden_size=config.hidden_size)
    architectures = list(getattr(config, "architectures", None) or [])
    architecture = next((name for name in architectures if name in ARCHITECTURES), None)
    if architecture is None:
        raise UserError(
            f"relay.defer.head: {student} is a {', '.join(architectures) or 'model of no named class'}; a head works "
            f"with {', '.join(ARCHITECTURES)}"
        )
    vocabulary = read_vocabulary(student, tokenizer, prompts)
    num_rows = vocabulary.size or config.vocab_size
    token_id = find_reserved_id(tokenizer, num_rows, vocabulary.end_ids, settings.reserved_id)
    ends = None
    if info.kind is HeadKind.FIRST_TOKEN_ENTROPY:
        ends = tuple(sorted(find_step_ends(TokenBytes(tokenizer), num_rows, info.step_end)))
    folder = str(Path(settings.head).expanduser().absolute())
    return EngineHead(folder, architecture, token_id, info, ends)


def with_head(run: RunConfig, head: EngineHead) -> RunConfig:
    """The composed recipe for verl's replicas of a student with this head.

    Raises:
        UserError: the recipe's engine decodes speculatively, or verl changes the model's configuration itself.
    """
    kwargs_key = f"{_ROLLOUT}.engine_kwargs.vllm"
    node = OmegaConf.select(run.verl, kwargs_key)
    kwargs: dict[str, Any] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_dict(node) else {}  # type: ignore[assignment]
    if kwargs.get("speculative_config"):
        raise UserError(
            f"{kwargs_key}.speculative_config: not with relay.defer.head, which scores each token before it is written"
        )
    for key in (f"{_ROLLOUT}.quantization", f"{kwargs_key}.hf_overrides", f"{kwargs_key}.logits_processors"):
        if value := OmegaConf.select(run.verl, key):
            raise UserError(f"{key}: {value}: not with relay.defer.head, which sets the engine's model class itself")
    return run.changed(kwargs_key, {**kwargs, **head.engine_options()})
