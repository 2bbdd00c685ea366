"""`relay.json` in a student's folder: how its pair is to be used, as it was trained. `relay-verl export` writes it, and
serving, the Python API and `relay-verl eval` read it.

    {"format": 1, "policy": "learned",
     "limits": {"max_response_tokens": 8192, "max_calls": null, "max_tokens_per_call": 4096, ...},
     "teacher": {"name": "Qwen/Qwen3-8B", "tokenizer_sha256": "..."},
     "template": {"chat_template_kwargs": {"enable_thinking": false}, "system": null},
     "sampling": {"student": {"temperature": 1.0, ...}, "teacher": {"temperature": 0.7, ...}},
     "relay_verl": "0.2.0"}

Invariants: a file that is read is whole and valid, or the one error names the key; a key that is not in it has the
default of the `relay:` node. The file may come from somebody else: it names no code that is imported, no address and no
key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from relay_verl.config.settings import RelaySettings
from relay_verl.config.teacher import TeacherSettings
from relay_verl.config.validation import validate
from relay_verl.config.values import STRICT, Count, NonNegative, Share, TopK
from relay_verl.errors import UserError, as_user_error
from relay_verl.extensions import is_address
from relay_verl.files import reading, replace_file
from relay_verl.models.address import find_file
from relay_verl.policies import make_policy, parse_policy
from relay_verl.relay_config import FixedCommand, OnTeacherFailure, RelayConfig
from relay_verl.versions import find_version

logger = logging.getLogger(__name__)

RELAY_FILE = "relay.json"
FORMAT = 1
"""Of the file; a reader refuses a higher one."""
MAX_BYTES = 1 << 20
"""Longest file that is read."""
_OURS = {"conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize", "return_dict"}


def _check_policy(name: str) -> str:
    if is_address(name):
        raise ValueError("a model's file names no code; allowed: a policy of relay_verl or of an entry point")
    parse_policy(name)
    return name


def _check_kwargs(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    if "${" in json.dumps(kwargs, default=str):  # a config would read it as a variable of this machine
        raise ValueError("'${' in a value; allowed: plain values")
    if taken := sorted(_OURS & kwargs.keys()):
        raise ValueError(f"{', '.join(taken)}: relaying sets this itself; allowed: what the chat template reads")
    return kwargs


@dataclass(frozen=True)
class RelayLimits:
    """What one response may cost, and what becomes of a failed call."""

    __pydantic_config__ = STRICT

    max_response_tokens: Count = 8192
    """Most tokens of a response, both writers and commands together; the paper's recipes by default."""
    max_calls: Annotated[int, Field(ge=0, strict=True)] | None = RelaySettings.max_calls
    """Most calls in a response; null for no limit but the response's tokens, 0 for none."""
    max_tokens_per_call: Count = RelaySettings.max_tokens_per_call
    """Most tokens a call delivers."""
    on_teacher_failure: OnTeacherFailure = RelaySettings.on_teacher_failure
    """What a failed call does to its response."""
    fixed_command: FixedCommand = RelaySettings.fixed_command
    """What the policy fixed_N fixes: the number that the student writes, or only the tokens asked for."""


@dataclass(frozen=True)
class TrainedTeacher:
    """The teacher that the student was trained with. Any other that reads the same token ids can take its place."""

    __pydantic_config__ = STRICT

    name: str | None = None
    """Hub id, or the last part of its folder or address; null if unknown or if there was none."""
    tokenizer_sha256: str | None = None
    """`relay_verl.models.tokenizers.tokenizer_sha256` of the tokenizer that it read and wrote with; null if unknown."""


@dataclass(frozen=True)
class RelayTemplate:
    """How a chat becomes a prompt, as in training."""

    __pydantic_config__ = STRICT

    chat_template_kwargs: Annotated[Mapping[str, Any], AfterValidator(_check_kwargs)] = field(default_factory=dict)
    """Further arguments of the tokenizer's chat template, such as {"enable_thinking": false}."""
    system: str | None = None
    """System message of the training's prompts, for chats that have none; null if they had none."""


@dataclass(frozen=True)
class WriterSampling:
    """How one of the two writers samples where a request does not say. Null leaves it to the engine."""

    __pydantic_config__ = STRICT

    temperature: NonNegative | None = None
    """Sampling temperature."""
    top_p: Share | None = None
    """Share of the probability that tokens are sampled from."""
    top_k: TopK | None = None
    """How many of the likeliest tokens are sampled from; -1 for all."""

    def parameters(self) -> dict[str, Any]:
        """Those that are given, under vLLM's names."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class PairSampling:
    """The sampling of both writers in training."""

    __pydantic_config__ = STRICT

    student: WriterSampling = WriterSampling()
    """Of the student's own tokens."""
    teacher: WriterSampling = WriterSampling(**TeacherSettings().sampling())
    """Of what the teacher writes in calls."""


@dataclass(frozen=True)
class RelayFile:
    """What `relay.json` says of a student."""

    __pydantic_config__ = STRICT

    policy: Annotated[str, AfterValidator(_check_policy)] = RelaySettings.policy
    """How commands are treated; see `relay_verl.policies`."""
    limits: RelayLimits = RelayLimits()
    """What one response may cost."""
    teacher: TrainedTeacher = TrainedTeacher()
    """Who answered calls in training."""
    template: RelayTemplate = RelayTemplate()
    """How a chat becomes a prompt."""
    sampling: PairSampling = PairSampling()
    """How both writers sample."""
    relay_verl: str | None = None
    """Version of the package that wrote the file."""
    format: Annotated[int, Field(ge=1, le=FORMAT, strict=True)] = FORMAT
    """Of the file."""

    def __post_init__(self) -> None:
        length, most = make_policy(self.policy).fixed_length(), self.limits.max_tokens_per_call
        if length is not None and length > most:
            raise ValueError(f"policy: {self.policy}: limits.max_tokens_per_call={most} allows at most fixed_{most}")

    def decoder_config(self, **others: Any) -> RelayConfig:
        """The limits of a response for `RelayDecoder`.

        Args:
            others: further fields of `RelayConfig`, such as `vocab_size`, `end_ids` and `teacher_timeout_s`; one that
                the file has, too, takes its place.
        """
        limits = asdict(self.limits) | {"teacher_sampling": self.sampling.teacher.parameters()}
        return RelayConfig(**{**limits, **others})


def read_relay_file(model: str | Path) -> RelayFile:
    """What the `relay.json` of a model says; the defaults, with a warning, where it has none.

    Args:
        model: a folder, or a hub id, whose file comes from the hub or from the hub's cache; an endpoint's URL has none.

    Raises:
        UserError: the file cannot be read, is of a later format, or has an unknown key or a bad value; names the file
            and the key.
    """
    relay = find_relay_file(model)
    if relay is not None:
        return relay
    limits = RelayLimits()
    logger.warning(
        "relay_verl: %s has no %s: calls are served without a limit of their number, of at most %d tokens each, in "
        "responses of at most %d tokens",
        model,
        RELAY_FILE,
        limits.max_tokens_per_call,
        limits.max_response_tokens,
    )
    return RelayFile()


def find_relay_file(model: str | Path) -> RelayFile | None:
    """The same for a caller with defaults of its own: None where the model has no `relay.json`."""
    file = find_file(str(model), RELAY_FILE)
    return None if file is None else validate(RelayFile, _read_object(file), f"{file}: ")


def write_relay_file(folder: Path, relay: RelayFile) -> None:
    """Write `relay.json` into a model's folder, with the versions of now. Raises OSError."""
    values = {**asdict(relay), "relay_verl": find_version("relay-verl"), "format": FORMAT}
    replace_file(Path(folder) / RELAY_FILE, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def _read_object(file: Path) -> dict[str, Any]:
    with reading(file):
        content = file.read_bytes() if file.stat().st_size <= MAX_BYTES else None
    if content is None:
        raise UserError(f"{file}: longer than {MAX_BYTES:,} bytes; it is not what `relay-verl export` writes")
    with as_user_error((ValueError, RecursionError), f"{file} is not JSON"):
        values = json.loads(content)
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a JSON object, got {values!r:.80}")
    # first of all: a later format may have keys that this one does not know
    written = values.get("format")
    if isinstance(written, int) and written > FORMAT:
        writer = values.get("relay_verl") or "a later version"
        raise UserError(
            f"{file}: format {written} of relay_verl {writer}; this version reads up to {FORMAT}: update it"
        )
    return values
