"""`relay-verl frontier` over real vLLM: killed, resumed and planned; the page, the pictures and the table."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay_verl.traces.results import read_result
from tests.helpers.killing import finished, kill_when

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_QUESTIONS = 24
KILL_AFTER = 4
METHODS = """
methods:
  - {name: student alone, policy: student_alone}
  - {name: teacher alone, policy: teacher_alone}
  - {name: query router 50%, policy: query_router_0.5}
  - {name: "relay, budget 2", policy: learned, student: warm, options: {max_teacher_tokens: 2}}
  - {name: "relay, one call", policy: learned, student: warm, options: {relay.max_calls: 1}}
"""


def test_a_comparison_is_planned_killed_and_resumed(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "methods.yaml").write_text(METHODS)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "relay_verl", "frontier", "--out", str(out)]
    command += ["--student", f"base={pair / 'student'}", "--student", f"warm={pair / 'student_warm'}"]
    command += ["--teacher", str(pair / "teacher"), "--benchmark", "tiny", "--recipe", "relay_tiny"]
    command += ["--methods", str(tmp_path / "methods.yaml"), "--limit", str(NUM_QUESTIONS), "--temperature", "1.0"]
    command += ["--json", "relay.prices.currency=XXX", "relay.prices.teacher.input=1", "relay.prices.teacher.output=4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(*options: str) -> dict:
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    # killed while the first method is asked; one response at a time, so that it is in the middle of it
    work = out / "results" / "student-alone" / "responses.jsonl.work"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--deterministic"], env=environment, stdout=log, stderr=log)
        try:
            kill_when(process, work, KILL_AFTER)
        finally:
            process.terminate()
    before = {key: json.loads(text) for key, text in finished(work).items()}
    assert KILL_AFTER <= len(before) < NUM_QUESTIONS

    rows = {row["method"]: row for row in run("--deterministic")["methods"]}
    alone = read_result(out / "results" / "student-alone")
    assert alone.manifest["num_resumed"] == len(before)
    kept = {f"tiny/{record.id}/{record.sample}": record.to_dict() for record in alone.records}
    assert before.items() <= kept.items(), "what was finished stays as it was"
    assert all(record.mean_logprob is not None and record.mean_logprob < 0 for record in alone.records)

    assert rows["teacher alone"]["num_responses"] == NUM_QUESTIONS
    assert rows["student alone"]["teacher_tokens_a_response"] == 0
    assert rows["query router 50%"]["teacher_tokens_a_response"] > 0
    budget = read_result(out / "results" / "relay-budget-2")
    assert max(record.num_teacher_tokens for record in budget.records) <= 2
    assert max(record.num_calls for record in read_result(out / "results" / "relay-one-call").records) <= 1
    with (out / "frontier.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == list(rows)
    page = (out / "frontier.html").read_text()
    for axis in ("teacher_tokens", "teacher_flops", "money", "seconds"):
        assert (out / f"frontier_{axis}.svg").is_file()
        assert any(row[f"{axis}_position"] == "hull" for row in rows.values())
    assert all(name in page for name in rows)

    # a plan for what is finished takes nothing more, and no model starts
    planned = run("--deterministic", "--plan")["plan"]
    assert {row["method"]: row["num_responses"] for row in planned} == dict.fromkeys(rows, 0.0)
