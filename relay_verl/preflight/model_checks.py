"""Whether both models are there, and read the same token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from relay_verl.config import TeacherSettings, read_settings
from relay_verl.data.prompts import wrap
from relay_verl.errors import EngineError, UserError
from relay_verl.models.address import check_folder_name, is_adapter
from relay_verl.models.launch import open_endpoint
from relay_verl.models.tokenizers import explain_tokenizer_error, template_of
from relay_verl.preflight.check import Doubt
from relay_verl.tokenization import chat_ids

IS_ADAPTER = (
    "is a LoRA adapter without its base model: give the folder of the whole model, which `relay-verl export` writes "
    "without --keep-adapter, and PEFT's merge_and_unload of any adapter"
)
ENDPOINT_DEADLINE_S = 6.0
HUB_DEADLINE_S = 10.0
MODEL_FILE = "config.json"
"""The file that every model on the hub has."""
TOKENIZER_FILE = "tokenizer_config.json"
"""The file that every tokenizer on the hub has."""
PROBE = "What is 7*8? <call>20</call> Let's see: \\boxed{56}\n\n\u00e9\u4e2d"


def is_local(path: str) -> bool:
    """Whether a model's path can only be a folder; `name` and `owner/name` may be ids on the hub."""
    return Path(path).expanduser().is_absolute() or path.startswith((".", "~")) or path.count("/") > 1


def check_model_path(key: str, path: str) -> str:
    """A local folder must exist and hold a whole model; a hub id is `check_on_hub`'s, a remote address its server's."""
    if "://" in path:
        return path
    check_folder_name(key, path)
    local = Path(path).expanduser()
    if is_adapter(local):
        raise UserError(f"{key}: {path} {IS_ADAPTER}")
    if is_local(path) and not (local / "config.json").is_file():
        what = "has no config.json" if local.is_dir() else "does not exist"
        raise UserError(f"{key}: {path} {what}; give a Hugging Face model folder or a hub id")
    return path


def check_model(key: str, path: str) -> str:
    """The model's folder, or its id on the hub or in the hub's cache, is there."""
    check_model_path(key, path)
    if "://" in path or is_local(path) or Path(path).is_dir():
        return path
    return f"{path}, {check_on_hub(key, path)}"


def check_tokenizer_path(key: str, path: str) -> str:
    """The same of a tokenizer, which may be alone in its folder or on the hub."""
    if "://" in path or Path(path).expanduser().is_dir():
        return path
    if is_local(path):
        raise UserError(f"{key}: {path} does not exist; give a folder with a tokenizer, or a hub id")
    return f"{path}, {check_on_hub(key, path, TOKENIZER_FILE)}"


def check_on_hub(key: str, name: str, file: str = MODEL_FILE) -> str:
    """A model is in the hub's cache, or the hub gives it to us; `HF_HUB_OFFLINE` is respected."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, file), str):
        return "in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{key}: {name} is not in the hub's cache, and HF_HUB_OFFLINE is set: unset it, download the model before "
            f"(`hf download {name}`), or give a folder"
        )
    url = hf_hub_url(name, file, endpoint=constants.ENDPOINT)
    try:
        get_hf_file_metadata(url, timeout=HUB_DEADLINE_S, retry_on_errors=False)
    except GatedRepoError:
        raise UserError(
            f"{key}: {name} is gated on the hub: ask for access there, and set HF_TOKEN to a token that has it"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{key}: {name} is neither a folder nor a model on the hub; if it is private, set HF_TOKEN"
        ) from None
    except EntryNotFoundError:
        raise UserError(
            f"{key}: {name} has no {file} on the hub"
            + ("; a LoRA adapter has none: give the whole model, with the adapter merged" if file == MODEL_FILE else "")
        ) from None
    except Exception as error:  # each HTTP client has its own errors
        raise UserError(
            f"{key}: {name} is not in the hub's cache, and {constants.ENDPOINT} does not answer for it "
            f"({type(error).__name__}): connect this machine, set HF_ENDPOINT to a mirror, or give a folder"
        ) from None
    return "on the hub"


def check_teacher(
    key: str,
    teacher: TeacherSettings,
    student_path: str,
    *,
    template: Mapping[str, Any] = {},
    own_template: str | None = None,
    tokenizer_path: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    """The teacher of the recipe's `key` is there and reads the student's token ids, or stands behind a text bridge; the
    text says what that costs, or where the prompt that it reads is not its own.

    Args:
        key: of the recipe.
        teacher: who answers calls.
        student_path: folder or hub id of the student.
        template: further arguments of the chat templates.
        own_template: the recipe's own chat template for the student.
        tokenizer_path: where the student's tokenizer is, if not with its model.
        trust_remote_code: whether models may bring code of their own, as `actor_rollout_ref.model.trust_remote_code`.
    """
    cost, trusts = "", trust_remote_code
    address = teacher.path or teacher.base_url
    name = f"{key}.path: {address}" if teacher.path is not None else f"{key}.base_url: {address}"
    students_key = f"actor_rollout_ref.model.{'path' if tokenizer_path is None else 'tokenizer_path'}"
    student = read_tokenizer(students_key, tokenizer_path or student_path, trust_remote_code=trusts)
    if teacher.path is not None:
        check_model_path(f"{key}.path", teacher.path)
    if teacher.own_tokenizer is not None:
        readers_path = teacher.own_tokenizer
        readers_key = f"{key}.tokenizer" if teacher.tokenizer else f"{key}.path"
        reader = read_tokenizer(readers_key, readers_path, trust_remote_code=trusts)
        cost = check_bridged_tokenizer(f"{key}.text_bridge: {readers_path}", student, reader)
    else:
        readers_path, reader = f"the student {student_path}", student
    difference = ""
    if teacher.path is not None and reader is student:
        theirs = read_tokenizer(f"{key}.path", teacher.path, trust_remote_code=trusts)
        student.chat_template = own_template or student.chat_template
        difference = compare_tokenizers(student, theirs)
        if not difference and (prompts := compare_prompts(student, theirs, template)):
            cost = (
                f"{name} and {readers_path}: {prompts}; a call reads the student's, `relay-verl filter` the teacher's"
            )
    elif teacher.base_url is not None:
        try:
            ids = asyncio.run(_tokenize_at_endpoint(teacher))
        except (EngineError, TimeoutError) as error:
            raise UserError(f"{name} does not answer: {error or 'no answer in time'}") from None
        ours = reader.encode(PROBE, add_special_tokens=False)
        difference = "" if ids in (None, ours) else f"{PROBE!r} is {ours} and {ids}"
    if difference:
        advice = "" if teacher.text_bridge else f"; {key}.text_bridge=true passes text between them"
        raise UserError(f"{name} and {readers_path} differ in their tokenizers: {difference}{advice}")
    return cost


def read_tokenizer(key: str, path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer at a folder or hub id.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} {explain_tokenizer_error(error)}") from None


def check_bridged_tokenizer(name: str, student: Any, teacher: Any) -> str:
    """A text bridge can read and write by the teacher's tokenizer; says what it costs."""
    for what, is_there in (
        ("end-of-sequence token", teacher.eos_token_id is not None),
        ("chat template", bool(teacher.chat_template)),
    ):
        if not is_there:
            raise UserError(f"{name} has no {what} in its tokenizer, which a text bridge needs")
    if compare_tokenizers(student, teacher):
        cost = (
            "has another tokenizer than the student: its context is decoded and encoded again for each call, lengths "
            "are counted in the student's tokens, and its prefix cache holds less"
        )
    else:
        cost = "has the student's tokenizer: without the bridge it would read the same ids"
    return f"{name} {cost}"


def check_teacher_models(config: Any) -> str:
    """Each teacher's model is there; an endpoint is asked with its tokenizer."""
    settings = read_settings(config.relay)
    if not settings.needs_teacher:
        return "none is needed"
    for key, teacher in settings.active_teachers.items():
        if teacher.tokenizer is not None:
            check_tokenizer_path(f"{key}.tokenizer", teacher.tokenizer)
    return "; ".join(
        f"{teacher.base_url}, an endpoint" if teacher.path is None else check_model(f"{key}.path", teacher.path)
        for key, teacher in settings.active_teachers.items()
    )


def check_student_model(config: Any) -> str:
    """The student is there, and so is its tokenizer where that lies elsewhere."""
    model = config.actor_rollout_ref.model
    text = check_model("actor_rollout_ref.model.path", model.path)
    if model.get("tokenizer_path"):
        check_tokenizer_path("actor_rollout_ref.model.tokenizer_path", model.tokenizer_path)
    return text


def check_tokenizers(config: Any) -> str | None:
    """`check_teacher` of each teacher of a composed config."""
    settings = read_settings(config.relay)
    if not settings.needs_teacher:
        return "only the student's"
    model = config.actor_rollout_ref.model
    doubts = [
        doubt
        for key, teacher in settings.active_teachers.items()
        if (
            doubt := check_teacher(
                key,
                teacher,
                model.path,
                template=template_of(config),
                own_template=model.get("custom_chat_template"),
                tokenizer_path=model.get("tokenizer_path"),
                trust_remote_code=bool(model.get("trust_remote_code", False)),
            )
        )
    ]
    return Doubt("; ".join(doubts)) if doubts else "the teacher reads the student's token ids"


def compare_prompts(one: Any, other: Any, template: Mapping[str, Any]) -> str:
    """How the prompts differ that two tokenizers' chat templates write for one question, such as in a default system
    prompt; empty if they do not, or if one has no template.

    Args:
        one, other: with the same vocabulary.
        template: further arguments of the templates.
    """
    if not (one.chat_template and other.chat_template):
        return ""
    messages = [{"role": "user", "content": wrap("What is 7*8?")}]
    try:
        texts = [
            tokenizer.decode(chat_ids(tokenizer, messages, template), skip_special_tokens=False)
            for tokenizer in (one, other)
        ]
    except Exception:  # one of them refuses this question: `relay_verl.preflight.trial` says so, of a row of the run's
        return ""
    if texts[0] == texts[1]:
        return ""
    shorter = min(map(len, texts))
    start = next((i for i in range(shorter) if texts[0][i] != texts[1][i]), shorter)
    ours, theirs = (text[start : start + 60] for text in texts)
    return f"their chat templates write other prompts for one question, with {ours!r} and {theirs!r} in one place"


async def _tokenize_at_endpoint(teacher: TeacherSettings) -> list[int] | None:
    endpoint = open_endpoint(replace(teacher, timeout_s=ENDPOINT_DEADLINE_S, num_retries=0))
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
