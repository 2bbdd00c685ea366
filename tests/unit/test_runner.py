"""What an exam asks for, and the deadline of a response."""

from typing import Any

import pytest

from relay_verl.evaluation.benchmarks import BENCHMARKS, Questions
from relay_verl.evaluation.runner import Exam

SAMPLINGS: list[tuple[str, float | None, dict[str, Any], str]] = [
    ("math-500", None, {"temperature": 0.0}, "greedy"),
    ("aime-2024", None, {"temperature": 0.7, "top_p": 0.8, "top_k": 20}, "the benchmark's own"),
    ("aime-2024", 0.9, {"temperature": 0.9, "top_p": 1.0, "top_k": -1}, "another temperature, said in full"),
    ("math-500", 0.9, {"temperature": 0.9, "top_p": 1.0, "top_k": -1}, "a temperature where it is greedy"),
    ("aime-2024", 0.0, {"temperature": 0.0}, "greedy by option"),
]


@pytest.mark.parametrize(("name", "temperature", "sampling", "why"), SAMPLINGS, ids=[case[3] for case in SAMPLINGS])
def test_the_sampling_of_a_benchmark(name: str, temperature: float | None, sampling: dict[str, Any], why: str) -> None:
    rows = [{"extra_info": {"id": "q"}}]
    exam = Exam({name: (BENCHMARKS[name], Questions(rows, {}))}, num_samples=2, temperature=temperature)
    assert exam.sampling(name) == (2, sampling)
    assert [query["sampling"] for _, query in exam.queries()] == [sampling] * 2
    assert exam.describe()["benchmarks"][name]["sampling"] == sampling, "the manifest says what is asked"
