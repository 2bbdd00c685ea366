"""The student's hidden states at each place of the references, by a forward pass of transformers, in one file that is
mapped into memory: what a head reads, h_t, is the last hidden state after the final norm, at the token before.

Invariants: a row of the file is a place, in the order of the queries; a process that is killed at any moment loses the
batch that it computes, since the count of finished queries is written behind their rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay_verl.defer_training.labelled_query import LabelledQuery
from relay_verl.errors import JobError, UserError, as_user_error
from relay_verl.files import replace_file, writing
from relay_verl.jobs.progress import show_progress

if TYPE_CHECKING:
    import torch

DATA_FILE, STATE_FILE = "hidden.bin", "hidden.json"
BATCH_TOKENS = 8192
"""Most tokens of a forward pass, padding included; a longer query is one by itself."""


def compute_hidden_states(
    queries: Sequence[LabelledQuery], student: str, folder: Path, spec: dict[str, Any], *, trusts: bool, device: str
) -> torch.Tensor:
    """The hidden states of all places, [num_tokens, hidden_size], in the student's number format; those that the folder
    has already are not computed again.

    Args:
        queries: with references.
        student: folder or hub id.
        folder: where they are kept.
        spec: what decides them; another one in the folder is an error.
        trusts: whether the student may bring code of its own.
        device: as torch names it.

    Raises:
        UserError: the student does not load, or the folder cannot be written.
        JobError: the folder has those of another job.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with as_user_error((OSError, ValueError, RuntimeError), student):
        whole = AutoModelForCausalLM.from_pretrained(
            student, dtype="auto", use_safetensors=True, trust_remote_code=trusts
        )
    model = whole.base_model.to(device).eval()  # without the head of the vocabulary
    num_tokens = sum(len(query.reference_ids) for query in queries)
    size = model.config.get_text_config().hidden_size
    dtype = model.dtype
    state = {**spec, "num_tokens": num_tokens, "hidden_size": size, "dtype": str(dtype)}
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        num_done = _read_state(folder, state)
        path = folder / DATA_FILE
        num_bytes = num_tokens * size * dtype.itemsize
        with open(path, "ab") as file:
            file.truncate(num_bytes)
        rows = torch.from_file(str(path), shared=True, size=num_tokens * size, dtype=dtype).view(num_tokens, size)
        start = sum(len(query.reference_ids) for query in queries[:num_done])
        bar = show_progress(total=len(queries), initial=num_done, desc="hidden states", unit="query")
        with bar, torch.inference_mode():
            for batch in _batches(queries[num_done:]):
                for states in _forward(model, batch):
                    rows[start : start + len(states)] = states
                    start += len(states)
                num_done += len(batch)
                bar.update(len(batch))
                _flush(path)
                replace_file(folder / STATE_FILE, json.dumps({**state, "num_done": num_done}).encode())
    return rows


def _read_state(folder: Path, state: dict[str, Any]) -> int:
    """How many queries the folder has."""
    file = folder / STATE_FILE
    if not file.is_file():
        return 0
    try:
        kept = json.loads(file.read_text())
        num_done = int(kept.pop("num_done"))
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{file} is damaged; remove {folder} to start anew") from None
    if kept != json.loads(json.dumps(state)):
        raise JobError(f"{folder} belongs to another job; give another --out, or remove it to start anew")
    return num_done


def _flush(path: Path) -> None:
    """Put the mapped rows on disk before they count."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batches(queries: Sequence[LabelledQuery]) -> Iterator[list[LabelledQuery]]:
    """The queries in order, in batches of at most BATCH_TOKENS."""
    batch: list[LabelledQuery] = []
    longest = 0
    for query in queries:
        length = len(query.prompt_ids) + len(query.reference_ids)
        if batch and max(longest, length) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch, longest = [], 0
        batch.append(query)
        longest = max(longest, length)
    if batch:
        yield batch


def _forward(model: Any, batch: Sequence[LabelledQuery]) -> Iterator[torch.Tensor]:
    """The states of each query's places, [length, hidden_size], on CPU."""
    import torch

    # the last token of a reference is written, not read
    texts = [[*query.prompt_ids, *query.reference_ids[:-1]] for query in batch]
    width = max(map(len, texts))
    # padded on the right, which no token before it sees
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts], device=model.device)
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=model.device)
    states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state.cpu()
    for query, text, own in zip(batch, texts, states, strict=True):
        yield own[len(query.prompt_ids) - 1 : len(text)]
