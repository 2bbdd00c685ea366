"""Answers one question once: the decoder of training under a policy, the grader, and a judge if there is one.

Invariants:

- A record is of what was asked. A student or a teacher that fails ends the attempt with an EngineError; it never
  becomes a response that the other one wrote alone.
- A question that can never be answered (its prompt fills the context or cannot be rendered, an engine refuses it for
  good or fails at it each time) is a record with its cause at `error`: not completed, and wrong.
- Whoever writes a whole response writes it under the benchmark's sampling and has `relay.rollout_timeout_s` for it, so
  that the teacher alone and the random router are measured as the students they are compared with (paper 4.2, Table 1,
  Figure 1). A teacher that answers calls keeps `relay.teacher`'s sampling and deadline, and is greedy with the student.
- The grader and the judge read the response without its commands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay_verl.allowance import Allowance, MeteredTeacher, WithinAllowance
from relay_verl.config import RelaySettings
from relay_verl.data.prompt_ids import prompt_ids_of
from relay_verl.data.prompts import strip_wrapper
from relay_verl.data.truths import truth_of, truth_text
from relay_verl.decoder import RelayDecoder, failure_of
from relay_verl.deferral import Deferral
from relay_verl.engines.base import TokenEngine, open_engine
from relay_verl.errors import PermanentError
from relay_verl.grading import Grader, Verdict, VerdictStatus, kind_of
from relay_verl.jobs.formats import Row
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.judging.judge import nothing_to_judge
from relay_verl.messages import content_text
from relay_verl.models.vocabulary import Vocabulary, read_vocabulary
from relay_verl.policies import TeacherFree, make_policy
from relay_verl.seeds import derive_seed, sample_seed
from relay_verl.tokenization import TokenBytes
from relay_verl.traces.records import REFUSED, UNCLEAR_REPLY, ResponseRecord, decode_parts
from relay_verl.traces.refusals import RefusalText
from relay_verl.types import CallOutcome, RelayStatus, RelayTrajectory


@dataclass(frozen=True)
class EvalSettings:
    """How responses come about, whoever writes them."""

    condition: str
    """What tables call it."""
    policy: str
    """See `relay_verl.policies`."""
    settings: RelaySettings
    """What calls may cost and how long they may take."""
    max_tokens: int
    """Most tokens of a response."""
    max_context: int | None
    """Most tokens of prompt and response together, of which a long prompt leaves fewer; None: no limit."""
    template: Mapping[str, Any]
    """Arguments of the chat template."""
    seed: int
    """Of all that is drawn."""
    deferral: Deferral | None = None
    """How the student's engine asks for the teacher, where the policy is one of a defer head."""
    max_teacher_tokens: int | None = None
    """Most tokens of the teacher in a response; None sets no limit."""
    has_scores: bool = False
    """Whether the student's engine is asked for log-probabilities."""
    num_refusals: int = 0
    """How many of a response's calls are each refused as well."""


class EvalWorker:
    """Writes and judges responses; can be sent to a Ray worker.

    Args:
        student, teacher: who writes; None where the policy needs none.
        tokenizer: both models'.
        rules: under which rules.
        judge: gives a second verdict on every response.
        vocabulary: that of the model that writes; of unknown size if None.
    """

    def __init__(
        self,
        student: TokenEngine | None,
        teacher: TokenEngine | None,
        tokenizer: Any,
        rules: EvalSettings,
        judge: AnswerJudge | None = None,
        vocabulary: Vocabulary | None = None,
    ):
        vocabulary = vocabulary or read_vocabulary(None, tokenizer)
        writer = student or teacher
        assert writer is not None
        # a response that its teacher fails ends there; `process` decides whether it is asked for again
        settings = replace(rules.settings, on_teacher_failure="drop")
        config = settings.decoder_config(
            rules.max_tokens,
            greedy=False,
            vocab_size=vocabulary.size,
            end_ids=vocabulary.end_ids,
            deferral=rules.deferral,
        )
        # a teacher that writes the whole response is one more student: nothing of `relay.teacher` bounds it
        whole = replace(config, teacher_sampling={}, teacher_timeout_s=settings.rollout_timeout_s)
        self._decoder = RelayDecoder(writer, teacher, tokenizer, config)
        self._teacher_alone = RelayDecoder(writer, teacher, tokenizer, whole)
        self._teacher = teacher
        self._tokenizer = tokenizer
        self._tokens = TokenBytes(tokenizer)
        self._rules = rules
        self._judge = judge
        self._grader = Grader()

    async def process(self, query: Row) -> Row:
        """The record of one sample, as JSON.

        Args:
            query: {row: in verl's schema, sample: its number, sampling: under vLLM's names}.

        Raises:
            EngineError: a model could not answer; asked again it may.
        """
        row = query["row"]
        started_at, started = time.time(), time.monotonic()
        facts = _facts_of(query)
        name = (facts["benchmark"], facts["id"], query["sample"])
        trajectory = await self._write(row, name, query["sampling"])
        _check_written(trajectory)
        latency_s = time.monotonic() - started
        truth, question = truth_of(row["reward_model"]), facts["question"]
        verdict = await self._grade(trajectory.response_ids, row)
        judge = await self._judge.judge(question, verdict.answer, truth_text(truth)) if self._judge else None
        record = ResponseRecord.of(
            trajectory,
            verdict,
            condition=self._rules.condition,
            judge=judge,
            started_at=started_at,
            latency_s=latency_s,
            join=self._tokens.join,
            mean_logprob=trajectory.mean_logprob if self._rules.has_scores else None,
            **facts,
        )
        if self._rules.num_refusals:
            record = replace(record, refusals=await self._refuse_calls(trajectory, row, name, query["sampling"]))
        return record.to_dict()

    async def _grade(self, response_ids: list[int], row: Row) -> Verdict:
        """By rule."""
        text = self._tokenizer.decode(response_ids, skip_special_tokens=True)
        return await self._grader.grade_async(text, truth_of(row["reward_model"]), kind_of(row.get("ability")))

    async def _refuse_calls(
        self, trajectory: RelayTrajectory, row: Row, name: tuple[str, str, int], sampling: Mapping[str, Any]
    ) -> list[RefusalText]:
        """The first served calls of a response, each refused: the same token ids up to and with its command, then the
        student alone, without commands.

        Raises:
            EngineError: the student's engine failed.
        """
        rules, refusals = self._rules, list[RefusalText]()
        served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
        for call in served[: rules.num_refusals]:
            kept = trajectory.response_ids[: call.position]
            seed = {} if sampling.get("temperature") == 0 else sample_seed(rules.seed, "refusal", *name, call.position)
            alone = await self._decoder.run(
                [*trajectory.prompt_ids, *kept],
                sampling={**sampling, **seed},
                policy=TeacherFree(),
                max_response_tokens=self._room(trajectory.prompt_ids) - len(kept),
            )
            _check_written(alone)
            if alone.is_refused:  # its engine reads no prompt of this length
                break
            verdict = await self._grade([*kept, *alone.response_ids], row)
            refusals.append(
                {
                    "position": call.position,
                    "is_correct": verdict.is_correct,
                    "answer": verdict.answer,
                    "num_tokens": alone.num_tokens,
                    "text": "".join(decode_parts([self._tokens.join(alone.response_ids)])),
                }
            )
        return refusals

    def _room(self, prompt_ids: list[int]) -> int:
        """Most tokens of a response to this prompt."""
        most, context = self._rules.max_tokens, self._rules.max_context
        return most if context is None else min(most, context - len(prompt_ids))

    async def _write(self, row: Row, name: tuple[str, str, int], sampling: Mapping[str, Any]) -> RelayTrajectory:
        """The response called `name`; an empty one that is refused where no engine needs to be asked."""
        rules = self._rules
        try:
            prompt_ids = prompt_ids_of(self._tokenizer, row, rules.template)
        except PermanentError as error:
            return RelayTrajectory([], [], RelayStatus.STUDENT_FAILED, error=str(error), is_refused=True)
        room = self._room(prompt_ids)
        if room < 1:
            cause = f"the prompt fills the context: {len(prompt_ids)} of {rules.max_context} tokens"
            return RelayTrajectory(prompt_ids, [], RelayStatus.STUDENT_FAILED, error=cause, is_refused=True)
        is_greedy = sampling.get("temperature") == 0
        seeds = [{} if is_greedy else sample_seed(rules.seed, who, *name) for who in ("student", "teacher")]
        # one object a response: the router draws here who writes it
        policy = make_policy(rules.policy, derive_seed(rules.seed, "policy", *name))
        is_teachers = not policy.needs_student
        decoder = self._teacher_alone if is_teachers else self._decoder
        # Greedy for pass@1, sampled where a benchmark says so: a teacher that answers calls follows the student, one
        # that writes the whole response is sampled as the benchmark says.
        teacher_sampling = sampling if is_teachers else rules.settings.teacher.sampling(greedy=is_greedy)
        teacher = self._teacher and open_engine(self._teacher, row["prompt"], len(prompt_ids))
        if teacher is not None and rules.max_teacher_tokens is not None:
            teacher = MeteredTeacher(teacher, decoder.teacher_pulse, [Allowance(rules.max_teacher_tokens)])
            policy = WithinAllowance(policy, teacher)
        scores = {"logprobs": True} if rules.has_scores else {}
        return await decoder.run(
            prompt_ids,
            sampling={**sampling, **seeds[0], **scores},
            teacher_sampling={**teacher_sampling, **seeds[1]},
            policy=policy,
            max_response_tokens=room,
            teacher=teacher,
        )


def _check_written(trajectory: RelayTrajectory) -> None:
    """Raise EngineError if a model failed, unless it refuses the request for good."""
    failure = failure_of(trajectory)
    if failure is not None and not trajectory.is_refused:
        raise failure


def unanswered(condition: str, has_judge: bool, query: Row, cause: str) -> Row:
    """The record of a sample at which a server fails each time, as JSON: not completed, and wrong.

    Args:
        condition: what tables call it.
        has_judge: whether responses have a second verdict.
        query: see `EvalWorker.process`.
        cause: how the server fails.
    """
    record = ResponseRecord.of(
        RelayTrajectory([], [], RelayStatus.STUDENT_FAILED, error=cause, is_refused=True),
        Verdict(False, None, VerdictStatus.NO_ANSWER),
        condition=condition,
        judge=nothing_to_judge() if has_judge else None,
        started_at=time.time(),
        latency_s=0.0,
        join=lambda token_ids: b"",  # there are none
        **_facts_of(query),
    )
    return record.to_dict()


def _facts_of(query: Row) -> dict[str, Any]:
    """What a record says of its question."""
    row = query["row"]
    return {
        "benchmark": str(row["data_source"]),
        "id": str(row["extra_info"]["id"]),
        "sample": query["sample"],
        "question": strip_wrapper(content_text(row["prompt"][-1]["content"]) or ""),
        "ground_truth": truth_text(truth_of(row["reward_model"])),
        "task": task_of(row),
    }


def task_of(row: Row) -> str | None:
    """The task of a benchmark that a row belongs to, at `extra_info.task`; None if it does not say."""
    task = (row.get("extra_info") or {}).get("task")
    return None if task in (None, "") else str(task)


def to_records(query: Row, record: Row) -> list[Row]:
    """The output's row of a query."""
    return [record]


def missing_verdict(record: Row) -> str | None:
    """Why the judge, which was asked, gave no reply to a record, as JSON; None if it did, or was not asked."""
    judge = record["judge"]
    if judge is None or judge["is_correct"] is not None or judge["error"] == UNCLEAR_REPLY:
        return None
    return None if judge["error"].startswith(REFUSED) else str(judge["error"])


def count_tokens(record: Row) -> dict[str, int]:
    """What each model wrote of a record, as JSON."""
    num_teacher_tokens = record["num_teacher_tokens"]
    refused = sum(refusal["num_tokens"] for refusal in record.get("refusals") or ())
    return {"student": record["num_tokens"] - num_teacher_tokens + refused, "teacher": num_teacher_tokens}
