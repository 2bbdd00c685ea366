"""The one tokenizer of all models that an evaluation compares, and the vocabulary that bounds what they write.

Invariant: a row is one prompt for all of them, the one that training would write
(`relay_verl.models.tokenizers.tokenizer_at`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relay_verl.errors import UserError
from relay_verl.models.address import is_elsewhere
from relay_verl.models.pretrained import load_trainers_tokenizer, trusts
from relay_verl.models.tokenizers import tokenizer_at
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.run_config import PromptSettings

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
"""Of which a model's folder has one or more if it has a tokenizer."""


def load_shared_tokenizer(prompts: PromptSettings, addresses: Sequence[str], path: str | None) -> tuple[Any, str]:
    """The tokenizer of all these models, which must be one, and where it is from. Where their chat templates write
    other prompts, a warning says whose all of them read.

    Args:
        prompts: the recipe's.
        addresses: of the models.
        path: whose tokenizer it is; that of the first model that is a folder or hub id if None.

    Raises:
        UserError: they differ, a folder is not there, or the tokenizer has no end or no chat template.
    """
    from relay_verl.models.address import check_model, check_tokenizer_path
    from relay_verl.models.tokenizers import compare_prompts, compare_tokenizers

    paths = [address for address in addresses if not is_elsewhere(address)]
    for address in paths:
        check_model("--student, --teacher", address)
    key = "actor_rollout_ref.model.tokenizer_path" if path is None else "--tokenizer"
    path = path or (prompts.tokenizer_of(paths[0]) if paths else None)
    if path is None:
        raise UserError("--tokenizer: all models are endpoints; name the model whose tokenizer they have")
    if path not in paths:
        check_tokenizer_path(key, path)
    tokenizer = tokenizer_at(prompts, path)
    for other in paths:
        if other != path and _has_no_tokenizer(other):
            continue  # it is read with the one that was named
        others = load_trainers_tokenizer(other, trusts(prompts))
        if difference := compare_tokenizers(tokenizer, others):
            raise UserError(f"{path} and {other} differ in their tokenizers: {difference}")
        has_own_template = prompts.chat_template is not None
        if not has_own_template and (difference := compare_prompts(tokenizer, others, prompts.template)):
            print(f"warning: {path} and {other}: {difference}; all read that of {path}", file=sys.stderr)
    return tokenizer, path


def _has_no_tokenizer(address: str) -> bool:
    """Whether this is a folder without a tokenizer, which `model.tokenizer_path` or --tokenizer names elsewhere."""
    folder = Path(address).expanduser()
    return folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES)


def vocabulary_of_writer(
    student: str | None, teacher: str | None, tokenizer: Any, tokenizer_path: str, prompts: PromptSettings
) -> Vocabulary:
    """The vocabulary of the model that writes under a condition, and reads what the other one writes. An endpoint does
    not say how large its own is: the model whose tokenizer it has does."""
    writer = student or teacher
    path = tokenizer_path if writer is None or is_elsewhere(writer) else writer
    return read_vocabulary(path, tokenizer, prompts)
