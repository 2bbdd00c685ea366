"""The `relay:` node as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, Field

from relay_verl.config.defer_settings import DeferSettings
from relay_verl.config.defer_training_settings import DeferTrainingSettings
from relay_verl.config.parts import FilterSettings, RewardSettings, WarmupSettings
from relay_verl.config.price_settings import PriceSettings
from relay_verl.config.teacher import TeacherSettings
from relay_verl.config.values import STRICT, Count, NonNegative, Positive
from relay_verl.deferral import Deferral
from relay_verl.errors import UserError
from relay_verl.policies import make_policy, needs_teacher, parse_policy, trainable
from relay_verl.relay_config import FixedCommand, OnTeacherFailure, RelayConfig


def _check_policy(name: str) -> str:
    if not parse_policy(name).kind.is_trainable:
        raise ValueError(f"that policy is for `relay-verl eval`; training takes {', '.join(trainable())}")
    return name


@dataclass(frozen=True)
class RelaySettings:
    """The `relay:` node."""

    __pydantic_config__ = STRICT

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
    defer: DeferSettings = field(default_factory=DeferSettings)
    """The student's defer head, for the policies `deferred_TAU` of `relay-verl eval`."""
    defer_training: DeferTrainingSettings = field(default_factory=DeferTrainingSettings)
    """How a defer head is trained and calibrated; see `relay_verl.defer_training`."""
    prices: PriceSettings = field(default_factory=PriceSettings)
    """What tokens cost, for reports and for `reward.kind: price`."""
    on_teacher_failure: OnTeacherFailure = "continue"
    """What a failed call does to its response."""
    max_failed_call_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """Largest share of a step's calls that may fail. Above it training ends with a checkpoint and the cause, whatever
    `on_teacher_failure` says of a single call; 1 never ends it: training continues without a teacher. Taken of at least
    20 calls, those of several steps where one has fewer. Evaluation, filter, warm-up data and judge end likewise, above
    this share of queries or verdicts that fail. A replica whose engine fails more of 20 requests is dropped for a while
    (our choice)."""
    train_on_teacher_tokens: bool = False
    """True trains on the teacher's tokens too, as the released code does."""
    rollout_timeout_s: Positive = 7200.0
    """Seconds a group of samples may take in all; past it the group counts as failed."""
    allow_overrides: Annotated[bool, Field(strict=True)] = True
    """True lets the command line undo what a recipe's variant changes, with a warning and `-modified` at the end of the
    experiment's name; False refuses that (ours)."""
    num_logged_groups: NonNegative = 1.0
    """Groups a step, on average, whose responses are written to `samples` next to the checkpoints, for `relay-verl
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
        deferral: Deferral | None = None,
    ) -> RelayConfig:
        """The limits of one response of at most `max_response_tokens` tokens, answered by `teacher`; `self.teacher` if
        None. `vocab_size` and `end_ids` are the student's (`relay_verl.models.vocabulary`), and so is `deferral`."""
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
            deferral=deferral,
            fixed_command=self.fixed_command,
        )
