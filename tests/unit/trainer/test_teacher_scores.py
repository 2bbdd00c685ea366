"""Scores reach the rows of the tokens that they are about, and an answer that does not fit is the teacher's failure."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from relay_verl.config import TeacherSettings
from relay_verl.distillation import DistillationSettings
from relay_verl.engines.verl_server import VerlServerEngine
from relay_verl.errors import EngineError, PermanentError
from relay_verl.models.replica_client import ReplicaClient
from relay_verl.tokenization import TokenBytes
from relay_verl.trainer import teacher_scores
from relay_verl.trainer.teacher_scores import NO_MASS, TeacherScorer
from relay_verl.types import RelayStatus, RelayTrajectory, Segment
from tests.helpers.replicas import Actor, Server, without_vllm
from tests.helpers.tokenizers import ByteTokenizer

PROMPT = [1, 2, 3]
RESPONSE = RelayTrajectory(
    PROMPT,
    [
        Segment("student", list(b"ab<call>2</call>")),
        Segment("teacher", list(b"xy")),
        Segment("student", [*b"c", ByteTokenizer.eos_token_id]),
    ],
    RelayStatus.COMPLETED,
)
READ = [*PROMPT, *b"abxyc", ByteTokenizer.eos_token_id]


class ScoringServer(Server):
    """Says of each position which token came there, its position in hundredths, and after these k - 1 other tokens."""

    def __init__(self) -> None:
        super().__init__("teacher")
        self.read: list[list[int]] = []
        self.sampling: dict[str, Any] = {}
        self.change: Callable[[list[Any], list[Any]], Any] = lambda ids, logprobs: (ids, logprobs)

    async def generate(self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str) -> Any:
        self.read.append(prompt_ids)
        self.sampling = dict(sampling_params)
        output = await super().generate(prompt_ids, sampling_params, request_id)
        others = range(max(0, sampling_params["prompt_logprobs"] - 1))
        ids = [[token_id, *others] for token_id in [*prompt_ids[1:], 0]]
        logprobs = [[-position / 100, *(-9.0 for _ in others)] for position in range(1, len(prompt_ids) + 1)]
        answer = self.change(ids, logprobs)
        if answer is not None:
            output.extra_fields |= dict(zip(("prompt_ids", "prompt_logprobs"), answer, strict=True))
        return output


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vllm(monkeypatch)
    monkeypatch.setattr(teacher_scores, "FIRST_WAIT_S", 0.001)


def make_scorer(
    loss: str = "forward_kl_topk", *, vocab_size: int = 257, has_commands: bool = True, **teacher: Any
) -> tuple[TeacherScorer, ScoringServer]:
    server = ScoringServer()
    engine = VerlServerEngine(ReplicaClient({"teacher": Actor(server)}), ByteTokenizer())
    settings = DistillationSettings(loss, topk=2)
    tokens = TokenBytes(ByteTokenizer())
    asked = TeacherSettings(path="big", **teacher)
    return TeacherScorer(engine, settings, asked, tokens, vocab_size, has_commands=has_commands), server


async def test_each_score_is_about_the_next_token_of_the_students_sequence() -> None:
    scorer, server = make_scorer()
    scores = await scorer.score(RESPONSE)
    assert server.read == [READ], "the teacher reads no command"
    assert server.sampling["prompt_logprobs"] == 2
    assert (scores.num_scored, scores.num_read) == (4, len(READ))
    sequence = PROMPT + RESPONSE.response_ids
    assert scores.ids.shape == scores.logprobs.shape == (len(sequence), 2)
    scored = (scores.logprobs[:, 0] > NO_MASS).nonzero()[:, 0].tolist()
    assert [sequence[row + 1] for row in scored] == [*b"abc", ByteTokenizer.eos_token_id]
    assert scores.ids[scored, 0].tolist() == [sequence[row + 1] for row in scored]
    places = [READ.index(sequence[row + 1]) for row in scored]
    assert scores.logprobs[scored, 0].tolist() == pytest.approx([-place / 100 for place in places])
    assert set(scores.logprobs[:, 0].tolist()) - set(scores.logprobs[scored, 0].tolist()) == {NO_MASS}


@pytest.mark.parametrize("loss", ["k1", "k3"])
async def test_an_estimate_is_asked_for_the_token_that_was_sampled(loss: str) -> None:
    """Without calls each token of the response is the student's, a command's too."""
    scorer, server = make_scorer(loss, has_commands=False)
    whole = RelayTrajectory(PROMPT, [Segment("student", list(b"a<call>2</call>"))], RelayStatus.COMPLETED)
    scores = await scorer.score(whole)
    assert server.sampling["prompt_logprobs"] == 0
    assert scores.ids[2:-1, 0].tolist() == whole.response_ids
    assert scores.num_scored == whole.num_tokens
    assert scores.logprobs[-1].item() == 0.0, "the row behind the last token is about none"


async def test_a_response_of_commands_alone_asks_for_nothing() -> None:
    scorer, server = make_scorer()
    called = RelayTrajectory(
        PROMPT,
        [Segment("student", list(b"<call>2</call>")), Segment("teacher", list(b"xy"))],
        RelayStatus.COMPLETED,
    )
    scores = await scorer.score(called)
    assert (scores.num_scored, scores.num_read, server.read) == (0, 0, [])
    assert (scores.logprobs == NO_MASS).all()


async def test_an_id_that_the_student_does_not_have_says_nothing() -> None:
    """A teacher's embedding may have padding rows past the student's last one."""
    scorer, _ = make_scorer(vocab_size=256)  # the end of the response is id 256
    scores = await scorer.score(RESPONSE)
    assert scores.ids.max() < 256
    assert scores.logprobs[-2].tolist() == [NO_MASS, -9.0]


BAD_ANSWERS = [
    (lambda ids, logprobs: None, "without the log-probabilities", "none"),
    (lambda ids, logprobs: (ids[1:], logprobs[1:]), "expected 9 positions of 2 each", "a position too few"),
    (lambda ids, logprobs: ([i[:1] for i in ids], [i[:1] for i in logprobs]), "expected 9", "one token for two"),
    (lambda ids, logprobs: (ids, [[None, 0.0] for _ in logprobs]), "not numbers", "no number"),
    (lambda ids, logprobs: (ids, [[float("nan"), 0.0] for _ in logprobs]), "not all finite", "not a number"),
]


@pytest.mark.parametrize(("change", "message", "why"), BAD_ANSWERS, ids=[why for *_, why in BAD_ANSWERS])
async def test_an_answer_that_does_not_fit_is_a_failure(change: Any, message: str, why: str) -> None:
    scorer, server = make_scorer(num_retries=0)
    server.change = change
    with pytest.raises(EngineError, match=message):
        await scorer.score(RESPONSE)


async def test_a_failure_is_tried_again_and_a_refusal_is_not() -> None:
    scorer, server = make_scorer(num_retries=2)
    server.fails = RuntimeError("out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        await scorer.score(RESPONSE)
    assert len(server.read) == 3
    server.fails = ValueError("prompt too long")
    with pytest.raises(PermanentError, match="prompt too long"):
        await scorer.score(RESPONSE)
    assert len(server.read) == 4


async def test_a_silent_teacher_has_a_deadline() -> None:
    scorer, server = make_scorer(timeout_s=0.05)
    server.seconds = 60.0
    with pytest.raises(EngineError, match="scored nothing"):
        await scorer.score(RESPONSE)


def test_no_mass_is_a_probability_of_zero_that_can_be_multiplied() -> None:
    logprob = torch.tensor(NO_MASS, dtype=torch.float32)
    assert logprob.exp() == 0
    assert logprob.exp() * (logprob - torch.tensor(-50.0)) == 0
