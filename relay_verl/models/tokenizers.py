"""The tokenizer of a model: loaded as training loads it, compared with another one's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from relay_verl.errors import UserError, first_line
from relay_verl.models.pretrained import load_auto_tokenizer, load_trainers_tokenizer, trusts
from relay_verl.run_config import PromptSettings
from relay_verl.tokenization import chat_ids


def tokenizer_at(prompts: PromptSettings, path: str) -> Any:
    """The tokenizer at `path` as training loads the student's, so that one row is one prompt wherever it is asked: with
    the recipe's own chat template (`actor_rollout_ref.model.custom_chat_template`) if it has one.

    Raises:
        UserError: it does not load, no response could end, or no question be put to it.
    """
    try:
        tokenizer = load_trainers_tokenizer(path, trusts(prompts))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} {explain_tokenizer_error(error)}") from None
    if prompts.chat_template is not None:
        tokenizer.chat_template = prompts.chat_template
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


PROBE = "What is 7*8? <call>20</call> Let's see: \\boxed{56}\n\n\u00e9\u4e2d"


def read_tokenizer(key: str, path: str, prompts: PromptSettings | None = None) -> Any:
    """The tokenizer at a folder or hub id.

    Args:
        key: what names it in a message.
        path: the folder or hub id.
        prompts: the recipe's, which says whether the tokenizer's own code may run; None: it may not.

    Raises:
        UserError: there is none.
    """
    try:
        return load_auto_tokenizer(path, trusts(prompts))
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} {explain_tokenizer_error(error)}") from None


def tokenizer_sha256(tokenizer: Any) -> str:
    """A hash of what token ids mean to a tokenizer: two for which `compare_tokenizers` tells no difference have the
    same."""
    meaning = [
        sorted(tokenizer.get_vocab().items()),
        tokenizer.eos_token_id,
        list(tokenizer.encode(PROBE, add_special_tokens=False)),
    ]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def compare_prompts(one: Any, other: Any, template: Mapping[str, Any]) -> str:
    """How the prompts differ that two tokenizers' chat templates write for one question, such as in a default system
    prompt; empty if they do not, or if one has no template.

    Args:
        one, other: with the same vocabulary.
        template: further arguments of the templates.
    """
    if not (one.chat_template and other.chat_template):
        return ""
    messages = [{"role": "user", "content": "What is 7*8?"}]
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
