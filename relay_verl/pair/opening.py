"""From what a caller names (a folder, a hub id, a URL) to the two engines of a pair that answer.

Invariant: a pair whose tokenizers differ, or a model that is not there, is one clear error before a model loads.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from relay_verl.config import DeferSettings
from relay_verl.engines.base import TokenEngine
from relay_verl.engines.endpoint import EndpointEngine
from relay_verl.engines.resilience import GuardedEngine
from relay_verl.engines.transformers_engine import TransformersEngine, own_device
from relay_verl.errors import UserError
from relay_verl.preflight.serving_checks import place
from relay_verl.serving.door_engine import DoorEngine
from relay_verl.serving.health_probe import HealthProbe
from relay_verl.serving.model_servers import ModelServers
from relay_verl.serving.pair_options import ModelOptions, PairOptions, read_model, with_head

EngineName = Literal["transformers", "vllm"]
ENGINES: tuple[EngineName, ...] = ("transformers", "vllm")
NUM_AT_ONCE = {"transformers": 2, "vllm": 64}
"""Texts that are written at a time: transformers writes one token of one text at a time, and the other model can write
meanwhile."""
TIMEOUT_S = 300.0
"""Seconds of a model's silence after which it has failed (`relay_verl.engines.deadlines`)."""


@dataclass(frozen=True)
class OpenedModel:
    """A model that answers."""

    engine: TokenEngine
    """Whom to ask."""
    max_model_len: int | None
    """Tokens of its context; None if that is not known."""


def read_options(
    student: str | Path,
    teacher: str | Path | None,
    engine: str,
    tokenizer: str | Path | None,
    *,
    trust_remote_code: bool,
) -> PairOptions:
    """What is to be opened.

    Raises:
        UserError: an unknown engine, an address that is none, or a URL as the student without a tokenizer.
    """
    if engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is not one of {', '.join(ENGINES)}; an endpoint is named by its URL")
    writer = read_model("student", str(student), None, None)
    assert writer is not None
    reads = str(tokenizer) if tokenizer is not None else writer.path
    if reads is None:
        raise UserError("tokenizer: give the student's folder or hub id: a URL does not say what it reads")
    return PairOptions(
        writer,
        read_model("teacher", None if teacher is None else str(teacher), None, None),
        reads,
        None,
        trust_remote_code=trust_remote_code,
    )


def add_head(options: PairOptions, folder: str | Path, num_tokens: int, tokenizer: Any) -> PairOptions:
    """The pair whose student has a defer head.

    Args:
        options: the pair.
        folder: of the head.
        num_tokens: tokens that the teacher writes each time.
        tokenizer: the student's.

    Raises:
        UserError: the number is none, the folder has no head, or the head does not fit the pair.
    """
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 1:
        raise UserError(f"defer_tokens: expected an int of at least 1, got {num_tokens!r}")
    return with_head(options, DeferSettings(str(folder), num_tokens), tokenizer, key="defer_head")


async def open_models(
    options: PairOptions, engine: str, tokenizer: Any, device: str | None, stack: AsyncExitStack
) -> list[OpenedModel]:
    """The student and, if there is one, the teacher.

    Args:
        options: what is opened.
        engine: what runs models of folders and hub ids.
        tokenizer: the student's.
        device: of transformers' models; None takes a GPU where there is one.
        stack: frees them at its end.

    Raises:
        UserError: a model does not load, or this machine cannot run it.
        EngineError: an endpoint, or a server that was started, does not answer.
    """
    lengths: dict[str, int | None] = {}
    servers: ModelServers | None = None
    if engine == "vllm" and options.ours:
        servers = ModelServers(options, place(options), tokenizer)
        servers.prepare_environment()
        supervisor = await stack.enter_async_context(servers.supervisor())
        await supervisor.wait_until_settled()
        watches = [supervisor.student, *([supervisor.teacher] if supervisor.teacher else [])]
        lengths = {watch.role: watch.model.max_model_len for watch in watches if watch.model is not None}

    async def open_one(model: ModelOptions) -> OpenedModel:
        if model.path is not None and servers is None:
            load = partial(_load, options=options, device=device or own_device())
            loaded = await asyncio.to_thread(load, model, tokenizer)
            stack.callback(loaded.close)
            return OpenedModel(loaded, loaded.max_model_len)
        if model.path is not None and servers is not None:
            asked = servers.engine(model, TIMEOUT_S)
            endpoint = asked.inner if isinstance(asked, GuardedEngine) else asked
            opened = OpenedModel(asked, lengths.get(model.role))
        else:
            assert model.url is not None
            endpoint = EndpointEngine(model.url, api_key_env=model.api_key_env, timeout_s=TIMEOUT_S)
            # a token is asked for, so that a server without token ids is an error here and not in the first text
            async with aclosing(HealthProbe(model.url, None, model.api_key_env)) as probe:
                served = await probe.read_model(int(tokenizer.eos_token_id))
            opened = OpenedModel(endpoint, served.max_model_len)
        if isinstance(endpoint, (DoorEngine, EndpointEngine)):
            stack.push_async_callback(endpoint.aclose)
        return opened

    return [await open_one(model) for model in options]


def _load(model: ModelOptions, tokenizer: Any, *, options: PairOptions, device: str) -> TransformersEngine:
    """A model of a folder or hub id, in this process; the student with its defer head, if it has one."""
    assert model.path is not None
    head = None
    if options.head is not None and model.role == "student":
        from relay_verl.defer.loaded_head import LoadedHead  # imports torch

        head = LoadedHead.load(options.head, device)
    trusts = options.trust_remote_code
    return TransformersEngine.load(model.path, tokenizer, device=device, trust_remote_code=trusts, head=head)
