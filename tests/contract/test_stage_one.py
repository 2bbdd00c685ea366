"""The filtered dataset inside verl's own, and what the generators' commands say of bad input before a model loads."""

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.errors import UserError
from relay_verl.run_config import RunConfig
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

COUNTS = [(10, 10), (10, 5), (10, 4), (10, 0), (7, 0), (5, 5), (5, 0)]
"""(num_done, num_correct) of seven queries; the last one is open at 0.5."""


def count(num_done: int, num_correct: int) -> dict[str, int]:
    return {"num_samples": 10, "num_done": num_done, "num_correct": num_correct, "num_tokens": 99}


def rows(num: int) -> list[dict[str, Any]]:
    return [to_row(data_source="test", question=f"{i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(num)]


def dataset(path: Path, min_pass_rate: float) -> Any:
    from relay_verl.trainer.datasets import TeacherSolvableDataset

    data = {"min_pass_rate": min_pass_rate, "cache_dir": str(path.parent), "filter_overlong_prompts": False}
    return TeacherSolvableDataset(str(path), make_bpe(BPE_WORDS), OmegaConf.create(data))


def write_counts(path: Path, counts: list[tuple[int, int]]) -> Path:
    plain = rows(len(counts))
    write_parquet(path, [row | {"teacher_pass": count(*c)} for row, c in zip(plain, counts, strict=True)])
    return path


def ids(rows: Any) -> list[str]:
    return [extra["id"] for extra in rows.dataframe["extra_info"]]


@pytest.mark.parametrize(
    ("min_pass_rate", "kept"),
    [(0.5, ["q0", "q1", "q5"]), (0.4, ["q0", "q1", "q2", "q5"]), (0.0, [f"q{i}" for i in range(6)])],
)
def test_one_pass_serves_any_threshold(min_pass_rate: float, kept: list[str], tmp_path: Path) -> None:
    assert ids(dataset(write_counts(tmp_path / "a.parquet", COUNTS[:6]), min_pass_rate)) == kept


def test_a_query_left_open_by_early_stopping_is_one_line(tmp_path: Path) -> None:
    path = write_counts(tmp_path / "a.parquet", COUNTS)
    with pytest.raises(UserError, match=r"data.min_pass_rate=0.5: .*: row 6 was filtered with --early-stop"):
        dataset(path, 0.5)


def test_a_threshold_that_leaves_nothing_is_one_line(tmp_path: Path) -> None:
    path = write_counts(tmp_path / "a.parquet", [(10, 4), (10, 0)])
    with pytest.raises(UserError, match=r"none of its 2 queries has a pass rate of at least 0.5"):
        dataset(path, 0.5)


def test_a_file_without_counts_is_read_whole(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows(3))
    assert len(dataset(tmp_path / "a.parquet", 0.5)) == 3


# ---- bad input ----


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    make_bpe(BPE_WORDS).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    return folder


def line_of(*arguments: str) -> str:
    """What the command says; it must not get as far as starting Ray."""
    import ray

    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, UserError), result.output
    assert not ray.is_initialized()
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_bad_input_of_the_generators_is_one_line(student: Path, tmp_path: Path) -> None:
    questions, out = tmp_path / "questions.parquet", tmp_path / "out.parquet"
    write_parquet(questions, rows(3))
    warm = ["warmup-data", "--recipe", "relay_tiny", "--student", str(student), "--out", str(out)]
    asked = ["filter", "--recipe", "relay_tiny", "--out", str(out), f"relay.teacher.path={student}"]
    good = ["--data", str(questions)]
    assert "no.parquet does not exist" in line_of(*warm, "--data", str(tmp_path / "no.parquet"))
    assert "--student: /no/such does not exist" in line_of(*warm, *good, "--student", "/no/such")
    assert "relay.warmup.max_exponent: 9: " in line_of(*warm, *good, "relay.warmup.max_exponent=9")
    assert "relay.teacher.path: /no/such does not exist" in line_of(*asked, *good, "relay.teacher.path=/no/such")
    assert "--early-stop would ask nothing" in line_of(*asked, *good, "--early-stop", "relay.filter.min_pass_rate=0")
    filtered = write_counts(tmp_path / "filtered.parquet", COUNTS)
    assert "has a column 'teacher_pass' already" in line_of(*asked, "--data", str(filtered))
    (tmp_path / "empty").mkdir()
    assert "has no parquet file" in line_of(*asked, "--data", str(tmp_path / "empty"))
    other = rows(1)[0] | {"prompt": [{"role": "user", "content": "another question"}]}
    write_parquet(tmp_path / "twice.parquet", [*rows(2), other])  # a copy would be the same query
    line = line_of(*asked, "--data", str(tmp_path / "twice.parquet"))
    assert all(part in line for part in ("twice.parquet", "1 ids occur more than once", "'q0'"))
    assert not out.exists()


def test_a_student_without_an_end_is_one_line(student: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="a")
    endless.save_pretrained(student)
    write_parquet(tmp_path / "questions.parquet", rows(3))
    line = line_of(
        *("warmup-data", "--recipe", "relay_tiny", "--student", str(student)),
        *("--data", str(tmp_path / "questions.parquet"), "--out", str(tmp_path / "out.parquet")),
    )
    assert "its tokenizer has no end-of-sequence token" in line


def test_the_filter_asks_an_endpoint_without_ray(student: Path, tmp_path: Path, fake_vllm: Any) -> None:
    """It takes the student's tokenizer; the answers are right for every third query."""
    import ray

    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(student)

    refused: list[Any] = []

    def complete(body: dict[str, Any]) -> Any:
        if len(refused) < 12:  # a moment's trouble, longer than the breaker of the training would stand
            refused.append(body)
            return 503, {"error": {"message": "overloaded"}}
        number = int(tokenizer.decode(body["prompt"]).partition("?")[0])
        assert body["temperature"] == 0.7
        ids = tokenizer.encode(f"\\boxed{{{7 if number % 3 == 0 else 8}}}", add_special_tokens=False)
        return {"choices": [{"index": 0, "text": "", "finish_reason": "stop", "token_ids": ids}]}

    fake_vllm.routes["/v1/completions"] = complete
    questions, out = tmp_path / "questions.parquet", tmp_path / "train.parquet"
    write_parquet(questions, rows(9))
    arguments = ["filter", "--recipe", "relay_tiny", "--data", str(questions), "--out", str(out)]
    arguments += ["relay.teacher.path=null", f"relay.teacher.base_url={fake_vllm.url}"]
    result = CliRunner().invoke(app, [*arguments, f"actor_rollout_ref.model.path={student}"])
    assert result.exit_code == 0, result.exception
    assert not ray.is_initialized()
    assert "3 of 9 queries have a pass rate of at least 0.5; 90 samples" in result.output
    assert ids(dataset(out, 0.5)) == ["q0", "q3", "q6"]
    assert len({body["seed"] for path, _, body in fake_vllm.requests if path == "/v1/completions"}) == 90
    assert len(refused) == 12


TOO_LONG = (400, {"error": {"message": "This model's maximum context length is 256 tokens. Please reduce the prompt."}})


def test_a_query_that_the_endpoint_refuses_is_left_out_of_the_filters_file(
    student: Path, tmp_path: Path, fake_vllm: Any
) -> None:
    """The first of 12 is longer than the model takes, and start-up tries it; the file is written without it, and the
    command says where it stands (EasyR1#207, verl#2069)."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(student)
    ids = tokenizer.encode("\\boxed{7}", add_special_tokens=False)
    answer = {"choices": [{"index": 0, "text": "", "finish_reason": "stop", "token_ids": ids}]}
    fake_vllm.routes["/v1/completions"] = lambda body: TOO_LONG if len(body["prompt"]) > 256 else answer
    questions = rows(12)
    questions[0]["prompt"][0]["content"] = "Long? " * 100
    data, out = tmp_path / "questions.parquet", tmp_path / "train.parquet"
    write_parquet(data, questions)
    arguments = ["filter", "--recipe", "relay_tiny", "--data", str(data), "--out", str(out)]
    arguments += ["relay.teacher.path=null", f"relay.teacher.base_url={fake_vllm.url}", "relay.filter.num_samples=2"]
    arguments += ["data.max_prompt_length=1024", f"actor_rollout_ref.model.path={student}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    unanswerable = json.loads((tmp_path / "train.parquet.manifest.json").read_text())["unanswerable"]
    assert [(one["query"], one["place"]) for one in unanswerable] == [("q0", f"{data}: row 1")]
    assert "maximum context length" in unanswerable[0]["cause"]
    assert f"1 of 12 queries can never be answered and are left out: {data}: row 1" in result.output
    assert ids_of(out) == [f"q{i}" for i in range(1, 12)]


def ids_of(path: Path) -> list[str]:
    return [extra["id"] for extra in pq.read_table(path)["extra_info"].to_pylist()]


@pytest.mark.parametrize("starts", [True, False])
def test_a_cluster_that_is_there_is_joined_and_not_started(starts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses num_cpus and num_gpus next to an address, which a submitted job finds in its environment."""
    import ray

    from relay_verl.models.ray_session import ray_cluster
    from relay_verl.recipes.compose import compose

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    listening = socket.create_server(("127.0.0.1", 0))  # where a cluster would answer
    if not starts:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
    given: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with listening, ray_cluster(RunConfig(compose("relay_tiny")), num_gpus=3):
        pass
    assert ("num_cpus" in given) is starts
    assert given.get("num_gpus") == (3 if starts else None)
    assert given["runtime_env"]["env_vars"]["VERL_PLATFORM"] == "cpu"
