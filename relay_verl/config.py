"""The `relay:` node of a recipe, typed. Imports neither torch nor verl.

A value is checked by the type written here; an unknown key or a bad value is one line that names the key, the value and
what is allowed.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from relay_verl.engines.address import check_address
from relay_verl.engines.factory import find_engine
from relay_verl.errors import UserError, suggest
from relay_verl.extensions import short_name
from relay_verl.policies import make_policy, needs_teacher, parse_policy, trainable
from relay_verl.relay_config import FixedCommand, OnTeacherFailure, RelayConfig
from relay_verl.rewards import find_reward
from relay_verl.secrets import HIDDEN, hide

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
_STRICT = ConfigDict(extra="forbid", strict=False)


def _check_policy(name: str) -> str:
    if not parse_policy(name).kind.is_trainable:
        raise ValueError(f"that policy is for `relay-verl eval`; training takes {', '.join(trainable())}")
    return name


def _check_reward(name: str) -> str:
    find_reward(name)
    return name


def _check_engine(name: str) -> str:
    find_engine(name)
    return name


def _check_weights(weights: tuple[float, ...]) -> tuple[float, ...]:
    if sum(weights) <= 0:
        raise ValueError("at least one weight must be above 0")
    return weights


def _check_top_k(top_k: int) -> int:
    if top_k == 0 or top_k < -1:
        raise ValueError("at least 1, or -1 for the whole vocabulary")
    return top_k


def _check_key_variable(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise ValueError("expected the name of an environment variable that holds the key, not the key")
    return name


@dataclass(frozen=True)
class TeacherSettings:
    """The large model: vLLM replicas of our own (`path`), an OpenAI-compatible endpoint (`base_url`), or an engine of
    another package (`engine`)."""

    __pydantic_config__ = _STRICT

    path: str | None = None
    """Hugging Face folder or hub id. The paper's teacher is Qwen3-8B (4.1.1)."""
    base_url: str | None = None
    """Endpoint instead of `path`, such as http://127.0.0.1:8000/v1; it must take and return token ids, as vLLM does."""
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
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of a GPU's memory a replica takes."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    """Number format of a replica's weights; that of the student's (`actor_rollout_ref.rollout.dtype`) if None."""
    max_num_seqs: Count = 256
    """Requests a replica runs at a time."""
    temperature: NonNegative = 0.7
    """Sampling temperature in training; the released service's. Greedy validation makes the teacher greedy too."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the probability that its tokens are sampled from; 1.0 is the released service's. Sent with every
    request, so that the model's generation_config never decides."""
    top_k: Annotated[int, Field(strict=True), AfterValidator(_check_top_k)] = -1
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
    """How often it is drawn, beside the others that may answer; 0 leaves it out and does not start it."""
    data_sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Values of the dataset's column `data_source` whose queries it answers; None for those that nobody else names."""
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
    def own_tokenizer(self) -> str | None:
        """Folder or hub id of the tokenizer it reads and writes with; None for the student's."""
        return (self.tokenizer or self.path) if self.text_bridge else None


@dataclass(frozen=True)
class RewardSettings:
    """Which reward, and its parts (paper 3.2.3)."""

    __pydantic_config__ = _STRICT

    kind: Annotated[str, AfterValidator(_check_reward)] = "difficulty_aware"
    """Eq. 3 ('simple'), the three scenarios ('difficulty_aware'), or one of another package; see `relay_verl.rewards`.
    """
    independence_bonus: NonNegative = 0.5
    """Scenario 1: added to 1.0 for a correct answer without a call; 0 is the ablation (5.2)."""
    stubbornness_penalty: NonNegative = 1.0
    """Scenario 2: taken from a wrong answer without a call."""
    exploration: bool = True
    """Scenario 3: rho for those that called; False is the ablation (5.2)."""
    charge: Literal["delivered", "requested"] = "delivered"
    """What rho counts; the released code charges the tokens requested."""
    scenario_scope: Literal["query", "batch"] = "query"
    """Whose samples decide on a scenario; the released code takes those of the whole batch."""


@dataclass(frozen=True)
class WarmupSettings:
    """How `relay-verl warmup-data` makes the data of the call warm-up (paper 3.1)."""

    __pydantic_config__ = _STRICT

    base_model: str | None = None
    """Hub id or folder of the model that the warm-up starts from: the student must have its shape; None checks nothing.
    """
    num_samples: Count = 1
    """Responses the student samples to each query."""
    num_placements: Count = 1
    """How often each of them is used, with commands at other places."""
    call_weights: Annotated[tuple[NonNegative, ...], AfterValidator(_check_weights)] = (1.0, 1.0, 1.0, 1.0)
    """Relative frequency of 0, 1, 2 ... commands in a sample; the released script draws 0 to 3 alike."""
    max_exponent: Annotated[int, Field(ge=0, le=6, strict=True)] = 3
    """Largest k of a command's n = d * 10^k."""
    temperature: NonNegative = 1.0
    """Sampling temperature of the student."""
    seed: int | None = 0
    """Seed of all samples and places; null samples without seeds, which an engine does faster."""


@dataclass(frozen=True)
class FilterSettings:
    """How `relay-verl filter` asks the teacher, and what training keeps (paper 3.2.2)."""

    __pydantic_config__ = _STRICT

    num_samples: Count = 10
    """The teacher's responses to each query."""
    min_pass_rate: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """Least share of them that is right, for a query to be trained on; the paper does not say which (our choice). 0
    keeps every query: the ablation without the filter (5.2)."""
    seed: int | None = 0
    """Seed of all samples; null samples without seeds, which an engine does faster."""


@dataclass(frozen=True)
class RelaySettings:
    """The `relay:` node."""

    __pydantic_config__ = _STRICT

    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Who answers calls, and who `relay-verl filter` asks."""
    teachers: tuple[TeacherSettings, ...] = ()
    """Several who answer calls, instead of `teacher`: one of them a response; see `relay_verl.models.routing`. What an
    entry does not say is the default, not `teacher`'s."""
    policy: Annotated[str, AfterValidator(_check_policy)] = "learned"
    """How commands are treated, by a policy that can be trained; see `relay_verl.policies`."""
    max_calls: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Most calls in a response; null, as in the paper, sets no limit but the response's tokens. The released code
    serves 2 in training and 4 in evaluation (a third or fifth turn ends the response). 0 is plain GRPO."""
    max_failed_calls: Count = 4
    """Failed calls after which a response stops asking, so that a dead teacher costs a bounded time (our choice)."""
    fixed_command: FixedCommand = "text"
    """What `policy: fixed_N` fixes (5.4). 'text': the written number itself, by constrained decoding, in the warm-up's
    data, training and evaluation, as the paper says; 'delivered': only the tokens asked for, as the released code does
    it. See `relay_verl.constraint`."""
    max_tokens_per_call: Count = 4096
    """Most tokens a call delivers; the released code caps n at 4096."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """The reward."""
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    """The data of the call warm-up."""
    filter: FilterSettings = field(default_factory=FilterSettings)
    """Which queries are trained on."""
    on_teacher_failure: OnTeacherFailure = "continue"
    """What a failed call does to its response."""
    max_failed_call_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """Largest share of a step's calls that may fail. Above it training ends with a checkpoint and the cause, whatever
    `on_teacher_failure` says of a single call; 1 never ends it: training continues without a teacher. Taken of at least
    20 calls, those of several steps where one has fewer. Evaluation, filter, warm-up data and judge end likewise, above
    this share of queries or verdicts that fail (our choice)."""
    train_on_teacher_tokens: bool = False
    """True trains on the teacher's tokens too, as the released code does."""
    rollout_timeout_s: Positive = 7200.0
    """Seconds a group of samples may take in all; past it the group counts as failed."""
    allow_overrides: Annotated[bool, Field(strict=True)] = True
    """True lets the command line undo what a recipe's variant changes, with a warning and `-modified` at the end of the
    experiment's name; False refuses that (ours)."""
    num_logged_groups: NonNegative = 1.0
    """Groups a step, on average, whose responses are written to `samples` beside the checkpoints, for `relay-verl
    trace`; 0 writes none."""

    @property
    def needs_teacher(self) -> bool:
        """Whether some command may be served."""
        return self.max_calls != 0 and needs_teacher(self.policy)

    @property
    def written_length(self) -> int | None:
        """The number that every command has to say; None where the student chooses it."""
        return make_policy(self.policy).fixed_length() if self.fixed_command == "text" else None

    @property
    def active_teachers(self) -> dict[str, TeacherSettings]:
        """Who answers calls, by the key that says so: `teachers` of a weight above 0, or else `teacher`."""
        listed = {f"relay.teachers.{index}": teacher for index, teacher in enumerate(self.teachers)}
        return {key: one for key, one in listed.items() if one.weight > 0} or {"relay.teacher": self.teacher}

    @property
    def only_teacher(self) -> TeacherSettings:
        """The teacher, for work that asks one.

        Raises:
            UserError: there are several.
        """
        teachers = list(self.active_teachers.values())
        if len(teachers) > 1:
            raise UserError(
                f"relay.teachers: {', '.join(t.label for t in teachers)}, but this asks one: name it with "
                "relay.teachers=[{path: ...}], or take relay.teacher with relay.teachers=[]"
            )
        return teachers[0]

    def decoder_config(
        self,
        max_response_tokens: int,
        *,
        greedy: bool,
        vocab_size: int | None,
        teacher: TeacherSettings | None = None,
        end_ids: frozenset[int] = frozenset(),
    ) -> RelayConfig:
        """The limits of one response of at most `max_response_tokens` tokens, answered by `teacher`; `self.teacher` if
        None. `vocab_size` and `end_ids` are the student's (`relay_verl.models.vocabulary`)."""
        teacher = teacher or self.teacher
        return RelayConfig(
            max_response_tokens=max_response_tokens,
            max_calls=self.max_calls,
            max_tokens_per_call=self.max_tokens_per_call,
            on_teacher_failure=self.on_teacher_failure,
            teacher_timeout_s=teacher.timeout_s,
            student_timeout_s=self.rollout_timeout_s,
            teacher_sampling=teacher.sampling(greedy=greedy),
            vocab_size=vocab_size,
            end_ids=end_ids,
            teacher_name=teacher.label if len(self.active_teachers) > 1 else None,
            max_failed_calls=self.max_failed_calls,
            fixed_command=self.fixed_command,
        )


def read_settings(node: Mapping[str, Any] | None) -> RelaySettings:
    """The `relay:` node of a composed config as settings.

    A list in `teacher` is read as `teachers`. Hydra merges no list into a mapping, which the recipes have there, so
    recipes and command lines say `teachers`.

    Raises:
        UserError: an unknown key or a bad value.
    """
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise UserError(f"relay: {str(error).splitlines()[0]}") from None
    if plain is not None and not isinstance(plain, Mapping):
        raise UserError(f"relay: {plain!r} is no group of settings; allowed: {', '.join(_fields_at([]))}")
    values: dict[str, Any] = dict(plain or {})  # type: ignore[arg-type]
    if isinstance(values.get("teacher"), (list, tuple)):
        if values.get("teachers"):
            raise UserError("relay.teacher: a list, and relay.teachers is given too; give one")
        values["teachers"] = values.pop("teacher")
        if not values["teachers"]:
            raise UserError("relay.teacher: []: an empty list; give at least one teacher")
    try:
        settings = _validator().validate_python(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(item) for item in error.errors())) from None
    length = make_policy(settings.policy).fixed_length()
    if length is not None and length > settings.max_tokens_per_call:
        raise UserError(
            f"relay.policy: {settings.policy}: a call delivers at most relay.max_tokens_per_call="
            f"{settings.max_tokens_per_call} tokens; raise that, or fix a lower number"
        )
    _check_teachers(settings)
    return settings


def check_endpoint(key: str, url: str, api_key_env: str) -> None:
    """Raise UserError, which names `key`, unless `url` can be an endpoint's address and holds no secret."""
    try:
        check_address(url, api_key_env)
    except ValueError as error:
        raise UserError(f"{key}: {error}") from None


@cache
def _validator() -> TypeAdapter[RelaySettings]:
    """Made once: that takes longer than all that it validates."""
    return TypeAdapter(RelaySettings)


def _check_teachers(settings: RelaySettings) -> None:
    """Raise UserError on what one field alone does not show."""
    listed = {f"relay.teachers.{index}": teacher for index, teacher in enumerate(settings.teachers)}
    for key, teacher in {"relay.teacher": settings.teacher, **listed}.items():
        if teacher.path is not None and teacher.base_url is not None:
            raise UserError(f"{key}: both path={teacher.path!r} and base_url={teacher.base_url!r} are given; give one")
        if teacher.engine is not None and (other := teacher.path or teacher.base_url):
            raise UserError(f"{key}: both engine={teacher.engine!r} and {other!r} are given; give one")
        if teacher.base_url is not None:
            check_endpoint(f"{key}.base_url", teacher.base_url, teacher.api_key_env)
        if key in listed and not teacher.is_given:
            raise UserError(f"{key}: no teacher given; set its path (a model) or base_url (an endpoint)")
        if teacher.tokenizer is not None and not teacher.text_bridge:
            raise UserError(f"{key}.tokenizer: {teacher.tokenizer!r} is for {key}.text_bridge=true")
        if teacher.text_bridge and teacher.base_url is not None and teacher.tokenizer is None:
            raise UserError(
                f"{key}.tokenizer: text_bridge=true needs the tokenizer of {teacher.base_url} (a folder or hub id)"
            )
    group = listed or {"relay.teacher": settings.teacher}
    if not any(teacher.weight > 0 for teacher in group.values()):
        raise UserError(f"{', '.join(f'{key}.weight' for key in group)}: 0; at least one weight must be above 0")
    labels: dict[str, str] = {}
    for key, teacher in listed.items():
        if other := labels.get(teacher.label):
            raise UserError(f"{key}.name: {teacher.label!r} is what {other} is called too; give each a name of its own")
        labels[teacher.label] = key
    if settings.needs_teacher and not all(teacher.is_given for teacher in group.values()):
        raise UserError(
            "relay.teacher: no teacher given; set relay.teacher.path (a model) or relay.teacher.base_url (an "
            "endpoint), or relay.max_calls=0 for training without one"
        )


def _explain(item: Any) -> str:
    """One pydantic error as 'key: value: what is allowed'."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(["relay", *location])
    if item["type"] == "unexpected_keyword_argument":
        allowed = _fields_at(location[:-1])
        return f"{key}: unknown key; allowed: {', '.join(allowed)}{suggest(location[-1], allowed)}"
    shown = HIDDEN if location[-1:] == ["api_key_env"] else repr(hide(key, item["input"]))
    return f"{key}: {shown}: {item['msg'].removeprefix('Value error, ')}"


def _fields_at(location: list[str]) -> list[str]:
    """Names of the fields of the settings at `location`."""
    settings: Any = RelaySettings
    for name in location:
        if name.isdigit():
            settings = typing.get_args(settings)[0]
        else:
            settings = typing.get_type_hints(settings, include_extras=False)[name]
    return [f.name for f in dataclasses.fields(settings)]


def num_gpus_of(models: Iterable[TeacherSettings]) -> int:
    """GPUs that the replicas of these models take; an endpoint takes none."""
    return sum(model.num_replicas * model.tensor_parallel_size for model in models if model.path is not None)
