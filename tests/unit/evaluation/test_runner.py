"""What a suite asks for, and what decides its responses: a run with other models never takes them for its own."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.benchmarks.registry import BENCHMARKS, Questions
from relay_verl.errors import JobError
from relay_verl.evaluation.job_spec import describe
from relay_verl.evaluation.suite import Condition, EvalSuite
from relay_verl.jobs import Job, run_job
from relay_verl.jobs.formats import JsonLines
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import RESPONSES

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
    suite = EvalSuite({name: (BENCHMARKS[name], Questions(rows, {}))}, num_samples=2, temperature=temperature)
    assert suite.sampling(name) == (2, sampling)
    assert [query["sampling"] for _, query in suite.queries()] == [sampling] * 2
    assert suite.describe()["benchmarks"][name]["sampling"] == sampling, "the manifest says what is asked"


URL = "http://127.0.0.1:1/v1"


def config(**model: Any) -> Any:
    return OmegaConf.create(
        {
            "data": {"max_response_length": 64},
            "actor_rollout_ref": {"rollout": {"max_model_len": 128}, "model": model},
            "relay": {"teacher": {"base_url": URL}},
        }
    )


def spec(
    folder: Path, *, names: dict[str, str] | None = None, tokenizer: str | None = None, **model: Any
) -> dict[str, Any]:
    condition = Condition("c", folder, URL, f"{URL}/2")
    addresses = dict.fromkeys((URL, f"{URL}/2"))
    return describe(RunConfig(config(**model)), condition, {}, addresses, names=names or {}, tokenizer=tokenizer)


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"names": {URL: "b"}}, "student_model"),
    ({"names": {URL: "a", f"{URL}/2": "b"}}, "teacher_model"),
    ({"names": {URL: "a"}, "tokenizer": "other"}, "tokenizer"),
    ({"names": {URL: "a"}, "custom_chat_template": "{{ messages }}"}, "chat_template"),
]


@pytest.mark.parametrize(("other", "key"), OTHERS, ids=[case[1] for case in OTHERS])
async def test_responses_of_another_model_or_prompt_are_not_taken(
    other: dict[str, Any], key: str, tmp_path: Path
) -> None:
    """One endpoint serves several models; what one of them answered is not the other's (lm-evaluation-harness#4063)."""
    out = tmp_path / RESPONSES

    async def evaluate(spec: dict[str, Any]) -> int:
        asked = 0

        async def answer(row: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return {"text": "56"}

        job = Job(spec, JsonLines(), answer, lambda row, result: [result])
        await run_job(job, [("q", {})], 1, out)
        return asked

    first = {"names": {URL: "a"}}
    assert await evaluate(spec(tmp_path, **first)) == 1
    assert await evaluate(spec(tmp_path, **first)) == 0, "it is there already"
    with pytest.raises(JobError, match=rf"belongs to another job: {key} is "):
        await evaluate(spec(tmp_path, **other))


def test_what_nobody_asked_for_is_left_to_the_model(tmp_path: Path) -> None:
    """So that results of an earlier version, which has no such keys, are still whole."""
    job_spec = spec(tmp_path)
    assert {job_spec[key] for key in ("student_model", "teacher_model", "tokenizer", "chat_template")} == {None}
