"""Which judge a command line names: ours, behind an endpoint, or one of another package.

    relay-verl eval ... --judge-url URL --judge-model NAME      `relay_verl.judging.judge`
    relay-verl eval ... --judge my_judges:Lenient                a class of another package, or an entry point's name

Invariant: a judge of another package gives a JudgeText or an EngineError, whatever it raises or returns, so that what
it says of a response can always be written and read again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from relay_verl.errors import EngineError, UserError, as_user_error, first_line
from relay_verl.extensions import Registry, takes
from relay_verl.judging.answer_judge import AnswerJudge
from relay_verl.judging.judge import Judge, make_judge
from relay_verl.judging.prompt import says_something
from relay_verl.traces.records import JudgeText

_VERDICT = TypeAdapter(JudgeText)


class PlainJudge(Protocol):
    """What a judge of another package is. It can be sent to a Ray worker by pickle."""

    spec: Mapping[str, Any]
    """What decides its verdicts, as JSON: results by another spec are not mixed with these."""

    async def ask(self, question: str, answer: str, ground_truth: str) -> JudgeText:
        """Whether `answer` means the same as `ground_truth`.

        Raises:
            EngineError: it cannot say, but may when asked again.
        """
        ...


JudgeFactory = Callable[[str | None, str | None], PlainJudge]
"""The values of --judge-url and --judge-model, None where not given, to a judge."""


def _accept(candidate: object, name: str) -> JudgeFactory | None:
    """A class with `ask`, or a function, of two arguments."""
    if isinstance(candidate, type) and not callable(getattr(candidate, "ask", None)):
        return None
    return candidate if takes(candidate, None, None) else None


REGISTRY: Registry[JudgeFactory] = Registry(
    kind="judge",
    group="relay_verl.judges",
    entries={},
    accept=_accept,
    expected="a class of (base_url, model) that has the method ask, or a function that gives one",
)


class OtherJudge(AnswerJudge):
    """A judge of another package, as an evaluation asks it.

    Args:
        name: of its factory.
        base_url: of --judge-url, if given.
        model: of --judge-model, if given.

    Raises:
        UserError: there is no such factory, or it does not give a judge.
    """

    def __init__(self, name: str, base_url: str | None, model: str | None):
        self._judge = REGISTRY.find(name)(base_url, model)
        self._name = name
        self.model, self.base_url = model or name, base_url or name
        if not inspect.iscoroutinefunction(getattr(self._judge, "ask", None)) or not hasattr(self._judge, "spec"):
            raise UserError(f"judge: {name!r} gives a {type(self._judge).__name__} without `async def ask` and `spec`")

    @property
    def spec(self) -> dict[str, Any]:
        """What decides its verdicts, as JSON, for a manifest."""
        return {"base_url": self.base_url, "model": self.model, "judge": self._name, **self._judge.spec}

    async def ask(self, question: str, answer: str | None, ground_truth: str) -> JudgeText:
        """Its verdict; a response without an answer is wrong without being asked about, as for our own judge.

        Raises:
            EngineError: it failed, or what it gives is not a verdict.
        """
        if answer is None or not says_something(answer):
            return {"is_correct": False, "reply": "", "error": "no answer to judge"}
        try:
            return _VERDICT.validate_python(await self._judge.ask(question, answer, ground_truth))
        except EngineError:
            raise
        except ValidationError as error:
            raise EngineError(f"judge {self._name}: not a JudgeText: {first_line(error)}") from None
        except Exception as error:  # another package's code
            raise EngineError(f"judge {self._name}: {type(error).__name__}: {first_line(error)}") from error

    async def check(self) -> None:
        """Put two answers to the judge whose verdicts are known.

        Raises:
            UserError: it fails, or a verdict is not the right one.
        """
        for answer, expected in (("2", True), ("3", False)):
            with as_user_error(EngineError, str):
                verdict = await self.ask("What is 1 + 1?", answer, "2")
            if verdict["is_correct"] is not expected:
                raise UserError(f"judge {self._name}: of 1 + 1 = {answer} it says {verdict}")


def choose_judge(name: str | None, base_url: str | None, model: str | None) -> Judge | OtherJudge | None:
    """The judge that a command line names; None if it names none.

    Args:
        name: of --judge.
        base_url: of --judge-url.
        model: of --judge-model.

    Raises:
        UserError: there is no such judge, or one of our own lacks an address or a model.
    """
    return make_judge(base_url, model) if name is None else OtherJudge(name, base_url, model)
