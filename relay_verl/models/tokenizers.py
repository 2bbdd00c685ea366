""""""

from __future__ import annotations

from typing import Any

from relay_verl.errors import UserError, first_line


def template_of(config: Any) -> dict[str, Any]:
    """A recipe's arguments of the chat template."""
    from omegaconf import OmegaConf

    template = config.data.get("apply_chat_template_kwargs") or {}
    return OmegaConf.to_container(template, resolve=True) if OmegaConf.is_config(template) else dict(template)  # type: ignore[return-value]


def prompt_spec(config: Any, tokenizer: str | None) -> dict[str, Any]:
    """What else than the models and `template_of` decides a row's prompt, for a job's spec; None where a recipe leaves
    it to the model.

    Args:
        config: a composed recipe.
        tokenizer: whose tokenizer was asked for.
    """
    from omegaconf import OmegaConf

    own = OmegaConf.select(config, "actor_rollout_ref.model.custom_chat_template")
    return {"tokenizer": tokenizer, "chat_template": own}


def tokenizer_at(config: Any, path: str) -> Any:
    """The tokenizer at `path` as training loads the student's, so that one row is one prompt wherever it is asked: with
    the recipe's own chat template (`actor_rollout_ref.model.custom_chat_template`) if it has one.

    Raises:
        UserError: it does not load, no response could end, or no question be put to it.
    """
    from verl.utils import hf_tokenizer

    model = config.actor_rollout_ref.model
    try:
        tokenizer = hf_tokenizer(path, trust_remote_code=model.get("trust_remote_code", False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} {explain_tokenizer_error(error)}") from None
    own_template = model.get("custom_chat_template")
    if own_template is not None:
        tokenizer.chat_template = own_template
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: its tokenizer has no end-of-sequence token; no response could end")
    if not tokenizer.chat_template:
        raise UserError(f"{path}: its tokenizer has no chat template; a question cannot be put to it")
    return tokenizer


def explain_tokenizer_error(error: BaseException) -> str:
    """Why a tokenizer does not load, as the end of a line that names it."""
    if "trust_remote_code" in str(error):
        return "has a tokenizer of its own code: set actor_rollout_ref.model.trust_remote_code=true if you trust it"
    return f"has no tokenizer that loads: {first_line(error)}"


def tokenizer_path_of(config: Any, model: str) -> str:
    """Where training reads the tokenizer of the student at `model`."""
    from omegaconf import OmegaConf

    return OmegaConf.select(config, "actor_rollout_ref.model.tokenizer_path") or model
