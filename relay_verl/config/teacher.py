"""`relay.teacher`, and each entry of `relay.teachers`: which model answers calls and how it runs (paper 4.1.1, 4.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from relay_verl.config.values import STRICT, Count, NonNegative, Positive, Share, TopK
from relay_verl.engines.factory import find_engine
from relay_verl.extensions import short_name


def _check_engine(name: str) -> str:
    find_engine(name)
    return name


def _check_key_variable(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("expected the name of an environment variable that holds the key, not the key")
    return name


@dataclass(frozen=True)
class TeacherSettings:
    """The large model: vLLM replicas of our own (`path`), an OpenAI-compatible endpoint (`base_url`), or an engine of
    another package (`engine`)."""

    __pydantic_config__ = STRICT

    path: str | None = None
    """Hugging Face folder or hub id. The paper's teacher is Qwen3-8B (4.1.1)."""
    base_url: str | None = None
    """Endpoint instead of `path`, such as http://127.0.0.1:8000/v1; it must take and return token ids, as vLLM does,
    but for `api: chat`."""
    api: Literal["completions", "chat"] = "completions"
    """How the endpoint is asked: for token ids, or for text that answers messages, as closed APIs do it. See
    `relay_verl.engines.chat`."""
    chat_prefix: Literal["continue", "flag", "explain"] = "continue"
    """How `api: chat` is given the response so far: as an assistant message that vLLM continues
    (`continue_final_message`), the same with `prefix: true` (DeepSeek, Mistral), or explained in the user's message.
    See `relay_verl.engines.chat_prefix`."""
    chat_fallback: Annotated[bool, Field(strict=True)] = False
    """True explains the response so far from then on, with a warning, if the API refuses `chat_prefix`; False makes
    that an error."""
    engine: Annotated[str, AfterValidator(_check_engine)] | None = None
    """Engine of another package instead of both, as `pkg.module:Name` or the name of an entry point; see
    `relay_verl.engines.factory`."""
    model: str | None = None
    """Name of the model at the endpoint; its first one if None. An engine of another package may read it as it likes.
    """
    api_key_env: Annotated[str, AfterValidator(_check_key_variable)] = "RELAY_TEACHER_API_KEY"
    """Environment variable that holds the endpoint's key, if it wants one."""
    num_replicas: Count = 1
    """vLLM replicas, each on `tensor_parallel_size` GPUs of its own."""
    tensor_parallel_size: Count = 1
    """GPUs a replica."""
    gpu_memory_utilization: Share = 0.85
    """Share of a GPU's memory a replica takes."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    """Number format of a replica's weights; that of the student's (`actor_rollout_ref.rollout.dtype`) if None."""
    max_num_seqs: Count = 256
    """Requests a replica runs at a time."""
    temperature: NonNegative = 0.7
    """Sampling temperature in training; the released service's. Greedy validation makes the teacher greedy too."""
    top_p: Share = 1.0
    """Share of the probability that its tokens are sampled from; 1.0 is the released service's. Sent with every
    request, so that the model's generation_config never decides."""
    top_k: TopK = -1
    """How many of the likeliest tokens it samples from; -1, as in the released service, for all. Sent like `top_p`."""
    timeout_s: Positive = 300.0
    """Seconds of silence after which a call fails, retries included. The deadline follows the load: an engine that
    answers other calls, or whose token counter moves, is not silent, and a call that waits in its queue is not late. A
    call that later calls overtake fails in a time that follows their pace. `relay_verl.engines.deadlines` has the
    rule."""
    node_resource: str | None = None
    """Ray custom resource of the nodes that replicas run on, and that the trainer leaves free; None: any node."""
    start_timeout_s: Positive = 1800.0
    """Seconds the replicas may take to start."""
    num_retries: Annotated[int, Field(ge=0, strict=True)] = 2
    """Further tries after a failed one, with exponential backoff, or after an endpoint's `Retry-After`. What is refused
    for good (a wrong key, a prompt that is too long) is not tried again."""
    breaker_threshold: Count = 8
    """Failures in a row, refusals aside, after which calls fail at once ..."""
    breaker_reset_s: Positive = 30.0
    """... until this many seconds have passed and one call is let through to try."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """What metrics call it; the last part of its address if None."""
    weight: NonNegative = 1.0
    """How often it is drawn, next to the others that may answer; 0 leaves it out and does not start it."""
    data_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Values of the dataset's column `data_source` whose queries it answers; None for those that no one else names."""
    text_bridge: bool = False
    """True lets it have another tokenizer than the student; see `relay_verl.engines.text_bridge`."""
    tokenizer: str | None = None
    """Folder or hub id of its tokenizer, for `text_bridge`; that of `path` if None."""

    @property
    def address(self) -> str | None:
        """Where it is: a folder, a hub id, an endpoint's URL or an engine's name; None if there is no teacher."""
        return self.path or self.base_url or self.engine

    @property
    def is_given(self) -> bool:
        """Whether there is a teacher at all."""
        return self.address is not None

    @property
    def label(self) -> str:
        """Its name, or the last part of its address."""
        address = self.path or self.model or short_name(self.engine or "")
        address = address or (self.base_url or "").rstrip("/").removesuffix("/v1")
        return self.name or address.rstrip("/").rsplit("/", 1)[-1]

    def sampling(self, *, greedy: bool = False) -> dict[str, Any]:
        """Its sampling parameters under vLLM's names, all that a model's generation_config could set otherwise."""
        if greedy:
            return {"temperature": 0.0, "top_p": 1.0, "top_k": -1}
        return {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}

    @property
    def reads_messages(self) -> bool:
        """Whether it is given a chat and text, not token ids."""
        return self.api == "chat"

    @property
    def own_tokenizer(self) -> str | None:
        """Folder or hub id of the tokenizer it reads and writes with; None for the student's."""
        return (self.tokenizer or self.path) if self.text_bridge else None


def num_gpus_of(models: Iterable[TeacherSettings]) -> int:
    """GPUs that the replicas of these models take; an endpoint takes none."""
    return sum(model.num_replicas * model.tensor_parallel_size for model in models if model.path is not None)
