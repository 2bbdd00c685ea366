"""What an evaluation asks of a judge, ours or another package's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from relay_verl.errors import EngineError, PermanentError
from relay_verl.traces.records import JudgeText, refusal


class AnswerJudge(Protocol):
    """Says whether answers mean the same as their ground truths."""

    model: str
    base_url: str

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What decides its verdicts, as JSON, for a manifest."""

    @abstractmethod
    async def ask(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """Whether `answer` means the same as `ground_truth`.

        Args:
            question: as text.
            answer: the final answer without commands; None if there is none.
            ground_truth: the right answer.

        Raises:
            PermanentError: it refuses the question for good.
            EngineError: it failed; the one-line message says why.
        """

    @abstractmethod
    async def check(self) -> None:
        """Put two answers to the judge whose verdicts are known.

        Raises:
            UserError: it fails, or a verdict is not the right one.
        """

    async def judge(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """As `ask`, with its failures as JudgeTexts."""
        try:
            return await self.ask(question, answer, ground_truth)
        except EngineError as error:
            if isinstance(error, PermanentError) and not error.concerns_all:
                return refusal(error)
            return {"is_correct": None, "reply": "", "error": str(error)}
