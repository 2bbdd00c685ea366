"""A judge: an answer is right if it is the reference but for case and spaces, without a model."""

from __future__ import annotations

from relay_verl.traces.records import JudgeText


class Lenient:
    """`--judge lenient`, or `--judge relay_extend.judge:Lenient`.

    Args:
        base_url, model: what --judge-url and --judge-model say; a judge that asks a model reads them.
    """

    def __init__(self, base_url: str | None, model: str | None):
        self.spec = {"rule": "case and spaces"}

    async def ask(self, question: str, answer: str, ground_truth: str) -> JudgeText:
        """Whether the answer is right."""
        is_correct = answer.casefold().split() == ground_truth.casefold().split()
        return {"is_correct": is_correct, "reply": "Yes" if is_correct else "No", "error": ""}
