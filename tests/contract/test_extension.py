"""What examples/extend adds, from the installed package: each by its path and by its entry point."""

import asyncio
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay_verl import extensions
from relay_verl.benchmarks.own import find_benchmarks
from relay_verl.benchmarks.registry import load_benchmark
from relay_verl.cli.main import app
from relay_verl.config import num_gpus_of, read_settings
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.engines.factory import make_engine
from relay_verl.errors import UserError
from relay_verl.judging.other_judge import OtherJudge, choose_judge
from relay_verl.models.launch import start_teachers
from relay_verl.policies import make_policy
from relay_verl.preflight.ray_checks import modules_of_others
from relay_verl.recipes.compose import compose
from relay_verl.rewards import rewards_of
from relay_verl.run_config import RunConfig
from relay_verl.traces.results import read_result
from relay_verl.trainer.metrics import SampleStats
from relay_verl.types import RelayTrajectory
from tests.helpers.extension import install_example
from tests.helpers.tokenizers import BPE_WORDS, ByteTokenizer, make_bpe

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the example is installed."""
    return install_example(tmp_path_factory.mktemp("extend"))


@pytest.fixture(autouse=True)
def installed(example: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example is on the module path, and its entry points are seen."""
    monkeypatch.syspath_prepend(str(example))
    extensions._points.cache_clear()
    yield
    extensions._points.cache_clear()


def test_the_example_is_not_there_without_its_installation(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(example)])
    monkeypatch.delitem(sys.modules, "relay_extend", raising=False)
    monkeypatch.delitem(sys.modules, "relay_extend.policy", raising=False)
    extensions._points.cache_clear()
    for name in ("capped_3", "relay_extend.policy:Capped_3"):
        with pytest.raises(UserError):
            make_policy(name)


@pytest.mark.parametrize("name", ["capped_3", "relay_extend.policy:Capped_3"])
def test_the_policy_bounds_each_call(name: str) -> None:
    settings = read_settings({"policy": name, "teacher": {"path": "x"}})
    tokenizer = ByteTokenizer()
    student = ScriptedEngine(tokenizer, ["a <call>9</call>", " b <call>2</call>", " end"])
    decoder = RelayDecoder(
        student, ScriptedEngine(tokenizer, lambda _: "teacher"), tokenizer,
        settings.decoder_config(200, greedy=True, vocab_size=None),
    )  # fmt: skip
    trajectory = asyncio.run(decoder.run([1], policy=make_policy(settings.policy)))
    assert [call.num_delivered for call in trajectory.calls] == [3, 2]


class Proposing(ScriptedEngine):
    """Writes a text whose capitals it is unsure of: entropy and surprise are high there."""

    async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
        assert options.get("sampling", {"logprobs": True})["logprobs"], "the policy asks for log-probabilities"
        answer = await super().generate(prompt_ids, **options)
        unsure = [chr(token_id).isupper() for token_id in answer.token_ids]
        logprobs = [-2.0 if is_unsure else -0.01 for is_unsure in unsure]
        top = [[-1.1, -1.1, -1.1] if is_unsure else [-0.01, -5.0] for is_unsure in unsure]
        return dataclasses.replace(answer, logprobs=logprobs, top_logprobs=top)


def decode(policy: str, text: str, teacher: ScriptedEngine, *, streams: bool = False) -> RelayTrajectory:
    """What the student's text becomes under a policy; the student continues at the place it is asked at."""
    tokenizer = ByteTokenizer()
    student = Proposing(tokenizer, lambda context: text[len(context) - 1 :])
    decoder = RelayDecoder(student, teacher, tokenizer, RelayConfig(len(text), None, 100))
    relay = decoder.stream([1], policy=make_policy(policy), streams=streams)

    async def read() -> list[int]:
        return [token_id async for segment in relay for token_id in segment.token_ids]

    shown = asyncio.run(read())
    trajectory = relay.trajectory()
    assert trajectory.error == ""
    assert shown == trajectory.response_ids, "a reader sees no token that was dropped"
    return trajectory


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("name", ["r2r_0.5", "relay_extend.r2r:R2R_0.5"])
def test_r2rs_rule_replaces_the_tokens_that_the_student_is_unsure_of(name: str, streams: bool) -> None:
    teacher = ScriptedEngine(ByteTokenizer(), lambda _: "t")
    trajectory = decode(name, "abCdeFFg", teacher, streams=streams)
    assert ByteTokenizer().decode(trajectory.response_ids) == "abtdettg"
    assert trajectory.response_mask == [1, 1, 0, 1, 1, 0, 0, 1]
    assert [call.num_delivered for call in trajectory.calls] == [1, 1, 1]
    assert [len(context) for context in teacher.requests] == [3, 6, 7], "without what was proposed there"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("text", "expected"), [("aBCDefgh", "aBCDtttt"), ("abcdEFGH", "abcdEFGH"), ("ab", "ab")])
@pytest.mark.parametrize("name", ["hand_over_4", "relay_extend.hand_over:HandOver_4"])
def test_one_hand_over_to_the_end(name: str, text: str, expected: str, streams: bool) -> None:
    teacher = ScriptedEngine(ByteTokenizer(), lambda _: "t" * 100)
    trajectory = decode(name, text, teacher, streams=streams)
    assert ByteTokenizer().decode(trajectory.response_ids) == expected
    assert trajectory.num_calls == len(teacher.requests) == ("t" in expected)


@pytest.mark.parametrize("policy", ["r2r_0.5", "hand_over_2"])
def test_a_rule_without_log_probabilities_fails_and_says_so(policy: str) -> None:
    tokenizer = ByteTokenizer()
    student = ScriptedEngine(tokenizer, ["abc"], logprob=None)
    decoder = RelayDecoder(student, ScriptedEngine(tokenizer, ["t"]), tokenizer, RelayConfig(8, None, 8))
    trajectory = asyncio.run(decoder.run([1], policy=make_policy(policy)))
    assert trajectory.status == "student_failed"
    assert "log-probabilities" in trajectory.error


@pytest.mark.parametrize("name", ["quadratic", "relay_extend.reward:quadratic"])
def test_the_reward_is_a_groups(name: str) -> None:
    options = read_settings({"reward": {"kind": name}, "teacher": {"path": "x"}}).reward
    helped = SampleStats("completed", is_correct=True, num_tokens=10, num_calls=1, num_teacher_tokens=5)
    alone = SampleStats("completed", is_correct=True, num_tokens=10)
    wrong = SampleStats("completed", num_tokens=10, num_calls=1, num_teacher_tokens=1, num_requested_tokens=2)
    assert rewards_of([helped, alone, wrong], options) == pytest.approx([0.75, 1.0, -0.01])
    charged = read_settings({"reward": {"kind": name, "charge": "requested"}, "max_calls": 0}).reward
    assert rewards_of([wrong], charged) == pytest.approx([-0.04])


@pytest.mark.parametrize("name", ["weekdays", "Weekdays", "relay_extend.benchmark:WEEKDAYS"])
def test_the_benchmark_has_its_own_file(name: str) -> None:
    [benchmark], own = find_benchmarks([name])
    assert (benchmark.name, own) == ("weekdays", {})
    rows = load_benchmark(benchmark, None).rows
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["Thursday", "Monday", "Monday", "Friday"]
    assert {row["data_source"] for row in rows} == {"weekdays"}


@pytest.mark.parametrize("name", ["weekdays", "relay_extend.benchmark:WEEKDAYS"])
def test_the_benchmark_can_be_written_as_a_file(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", name, "--out", str(tmp_path / "weekdays.parquet")])
    assert result.exit_code == 0, result.output
    assert "4 questions" in result.output


@pytest.mark.parametrize("name", ["hint", "relay_extend.engine:Hint"])
def test_the_engine_is_a_teacher(name: str) -> None:
    words = ["path=null", f"engine={name}", "model='hm '", "num_replicas=2"]
    run = RunConfig(compose("relay_tiny", [f"relay.teacher.{word}" for word in words]))
    [teacher] = run.relay.active_teachers.values()
    assert run.relay.needs_teacher
    assert num_gpus_of([teacher]) == 0
    group = asyncio.run(start_teachers(run, ByteTokenizer()))
    [engine] = [pickle.loads(pickle.dumps(each.engine)) for each in group.values()]
    answer = asyncio.run(engine.generate([1], max_tokens=7))
    assert ByteTokenizer().decode(answer.token_ids) == "hm hm h"


def test_an_engine_and_a_model_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"relay\.teacher: both engine='hint' and 'x' are given"):
        read_settings({"teacher": {"engine": "hint", "path": "x"}})


@pytest.mark.parametrize("name", ["lenient", "relay_extend.judge:Lenient"])
def test_the_judge_has_a_verdict_of_its_own(name: str) -> None:
    judge = choose_judge(name, None, None)
    assert isinstance(judge, OtherJudge)
    judge = pickle.loads(pickle.dumps(judge))
    assert judge.spec["rule"] == "case and spaces"
    asyncio.run(judge.check())
    asked = [asyncio.run(judge.judge("?", answer, "Monday")) for answer in (" monday ", "Sunday", None)]
    assert [verdict["is_correct"] for verdict in asked] == [True, False, False]


def test_a_judge_that_fails_is_a_verdict_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = OtherJudge("lenient", None, None)
    for given in ("Yes", {"is_correct": "Yes", "reply": "", "error": ""}, ZeroDivisionError("a bug")):
        monkeypatch.setattr(judge._judge, "ask", failing(given))
        verdict = asyncio.run(judge.judge("?", "a", "b"))
        assert verdict["is_correct"] is None
        assert verdict["error"].startswith("judge lenient: ")
        with pytest.raises(UserError, match="judge lenient: "):
            asyncio.run(judge.check())


def failing(given: object) -> object:
    async def ask(*asked: str) -> object:
        if isinstance(given, Exception):
            raise given
        return given

    return ask


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with a tokenizer that has a chat template."""
    bpe = make_bpe(BPE_WORDS)
    bpe.chat_template = TEMPLATE
    bpe.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.mark.parametrize("is_short", [True, False])
def test_an_evaluation_by_all_of_them(is_short: bool, tokenizer: Path, tmp_path: Path) -> None:
    """A student that only repeats its hint calls again and again; each call is capped at two tokens."""
    policy = "capped_2" if is_short else "relay_extend.policy:Capped_2"
    student, teacher = ["engine:hint", "engine:relay_extend.engine:Hint"][:: 1 if is_short else -1]
    arguments = [
        *("--student", student, "--student-model", "so <call>9</call>", "--tokenizer", str(tokenizer)),
        *("--teacher", teacher, "--policy", policy, "--recipe", "relay_tiny", "--out", str(tmp_path / "out")),
        *("--benchmark", "weekdays" if is_short else "relay_extend.benchmark:WEEKDAYS", "--limit", "2"),
        *("--judge", "lenient" if is_short else "relay_extend.judge:Lenient", "--json"),
    ]
    result = CliRunner().invoke(app, ["eval", *arguments, "data.max_response_length=60"])
    if result.exception:
        raise result.exception
    answers = read_result(tmp_path / "out" / policy.replace(":", "."))
    assert len(answers.records) == 2
    assert answers.policy == policy
    for record in answers.records:
        served = [call for call in record.calls if call["outcome"] == "served"]
        assert served
        assert {call["num_requested"] for call in served} == {2}
        assert record.judge == {"is_correct": False, "reply": "", "error": "no answer to judge"}
    judged = CliRunner().invoke(app, ["judge", str(tmp_path / "out"), "--judge", "lenient"])
    assert judged.exit_code == 0, judged.output


def test_every_node_is_asked_for_the_modules_that_its_workers_import() -> None:
    named = ["relay.policy=capped_3", "relay.reward.kind=relay_extend.reward:quadratic", "relay.teacher.engine=hint"]
    config = compose("relay_tiny", ["relay.teacher.path=null", *named])
    assert modules_of_others(RunConfig(config)) == ["relay_extend.policy", "relay_extend.reward", "relay_extend.engine"]
    assert modules_of_others(RunConfig(compose("relay_tiny", ["relay.teacher.path=x"]))) == []


def test_a_fresh_process_finds_the_names_by_itself(example: Path) -> None:
    """As a worker on another node does: a name travels as text, an engine by pickle."""
    settings = read_settings({"teacher": {"engine": "hint"}})
    engine = pickle.dumps(make_engine("hint", settings.teacher, ByteTokenizer()))
    code = (
        "import pickle, sys\n"
        "from relay_verl.config import read_settings\n"
        "from relay_verl.policies import make_policy\n"
        "node = {'policy': 'capped_3', 'reward': {'kind': 'quadratic'}, 'teacher': {'engine': 'hint'}}\n"
        "print(make_policy(read_settings(node).policy).limit)\n"
        f"print(type(pickle.loads({engine!r})).__name__)\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(example), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert fresh.stdout.split() == ["3", "Hint"], fresh.stderr
