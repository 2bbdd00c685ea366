"""Whether both models are there, and read the same token ids."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from relay_verl.config import ConfigError, RelaySettings, read_settings
from relay_verl.engines.base import EngineError
from relay_verl.engines.endpoint import EndpointEngine

ENDPOINT_DEADLINE_S = 20.0
HUB_DEADLINE_S = 10.0
PROBE = "What is 7*8? <call>20</call> Let's see: \\boxed{56}\n\n\u00e9\u4e2d"


def is_local(path: str) -> bool:
    """Whether a model's path can only be a folder; `name` and `owner/name` may be ids on the hub."""
    return Path(path).expanduser().is_absolute() or path.startswith((".", "~")) or path.count("/") > 1


def check_model_path(key: str, path: str) -> str:
    """A local model folder must exist; a hub id is `check_on_hub`'s, and a remote address its server's."""
    if "://" in path:
        return path
    local = Path(path).expanduser()
    if is_local(path) and not (local / "config.json").is_file():
        what = "has no config.json" if local.is_dir() else "does not exist"
        raise ConfigError(f"{key}: {path} {what}; give a Hugging Face model folder or a hub id")
    return path


def check_model(key: str, path: str) -> str:
    """The model's folder, or its id on the hub or in the hub's cache, is there."""
    check_model_path(key, path)
    if "://" in path or is_local(path) or Path(path).is_dir():
        return path
    return f"{path}, {check_on_hub(key, path)}"


def check_on_hub(key: str, name: str) -> str:
    """A model is in the hub's cache, or the hub gives it to us; `HF_HUB_OFFLINE` is respected."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return "in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{key}: {name} is not in the hub's cache, and HF_HUB_OFFLINE is set: unset it, download the model before "
            f"(`hf download {name}`), or give a folder"
        )
    url = hf_hub_url(name, "config.json", endpoint=constants.ENDPOINT)
    try:
        get_hf_file_metadata(url, timeout=HUB_DEADLINE_S, retry_on_errors=False)
    except GatedRepoError:
        raise ConfigError(
            f"{key}: {name} is gated on the hub: ask for access there, and set HF_TOKEN to a token that has it"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{key}: {name} is neither a folder nor a model on the hub; if it is private, set HF_TOKEN"
        ) from None
    except Exception as error:  # each HTTP client has its own errors
        raise ConfigError(
            f"{key}: {name} is not in the hub's cache, and {constants.ENDPOINT} does not answer for it "
            f"({type(error).__name__}): connect this machine, set HF_ENDPOINT to a mirror, or give a folder"
        ) from None
    return "on the hub"


def check_teacher(settings: RelaySettings, student_path: str) -> None:
    """The teacher is there, and both models read the same token ids."""
    teacher = settings.teacher
    student = _load_tokenizer("actor_rollout_ref.model.path", student_path)
    if teacher.path is not None:
        check_model_path("relay.teacher.path", teacher.path)
        difference = compare_tokenizers(student, _load_tokenizer("relay.teacher.path", teacher.path))
        name = f"relay.teacher.path: {teacher.path}"
    else:
        assert teacher.base_url is not None
        name = f"relay.teacher.base_url: {teacher.base_url}"
        try:
            theirs = asyncio.run(_tokenize_at_endpoint(settings))
        except (EngineError, TimeoutError) as error:
            raise ConfigError(f"{name} does not answer: {error or 'no answer in time'}") from None
        ours = student.encode(PROBE, add_special_tokens=False)
        difference = "" if theirs in (None, ours) else f"{PROBE!r} is {ours} for the student and {theirs} for it"
    if difference:
        raise ConfigError(f"{name} and the student {student_path} differ in their tokenizers: {difference}")


def _load_tokenizer(key: str, path: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{key}: {path} has no tokenizer that can be loaded: {why}") from None


def check_teacher_model(config: Any) -> str:
    """The teacher's model is there; an endpoint is asked with its tokenizer."""
    settings = read_settings(config.relay)
    if not settings.needs_teacher:
        return "none is needed"
    if settings.teacher.path is None:
        return f"{settings.teacher.base_url}, an endpoint"
    return check_model("relay.teacher.path", settings.teacher.path)


def check_tokenizers(config: Any) -> str:
    """`check_teacher` of a composed config."""
    settings = read_settings(config.relay)
    if not settings.needs_teacher:
        return "only the student's"
    check_teacher(settings, config.actor_rollout_ref.model.path)
    return "the teacher reads the student's token ids"


async def _tokenize_at_endpoint(settings: RelaySettings) -> list[int] | None:
    assert settings.teacher.base_url is not None
    endpoint = EndpointEngine(
        settings.teacher.base_url,
        settings.teacher.model,
        api_key_env=settings.teacher.api_key_env,
        timeout_s=ENDPOINT_DEADLINE_S,
    )
    async with asyncio.timeout(ENDPOINT_DEADLINE_S):
        await endpoint.model()
        return await endpoint.tokenize(PROBE)


def compare_tokenizers(student: Any, teacher: Any) -> str:
    """How two tokenizers differ; empty if token ids mean the same to both."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        different = [token for token in ours if theirs.get(token) != ours[token]]
        extra = len(theirs.keys() - ours.keys())
        example = f", e.g. {different[0]!r} is {ours[different[0]]} and {theirs.get(different[0])}" if different else ""
        return (
            f"{len(different)} of {len(ours)} tokens have another id or none{example}; {extra} are only the teacher's"
        )
    if student.eos_token_id != teacher.eos_token_id:
        return f"the end-of-sequence token is {student.eos_token!r} and {teacher.eos_token!r}"
    if student.encode(PROBE, add_special_tokens=False) != teacher.encode(PROBE, add_special_tokens=False):
        return f"same vocabulary, but they split {PROBE!r} differently"
    return ""
