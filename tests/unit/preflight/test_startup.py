"""Training and our commands refuse at start what they would find late or never: the same checks, whoever runs them."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

import verl  # noqa: F401  isort: skip  (loads the plugin)
from relay_verl.cli.main import app
from relay_verl.config import TeacherSettings
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.errors import UserError
from relay_verl.models.launch import load_tokenizer
from relay_verl.models.tokenizers import read_tokenizer
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.lengths import check_lengths
from relay_verl.preflight.model_checks import check_student_model, check_teacher, check_teacher_models, check_tokenizers
from relay_verl.preflight.registry import RECIPE
from relay_verl.preflight.training import check_config
from relay_verl.preflight.trial import check_completions, check_prompts
from relay_verl.preflight.trials import training_trial
from relay_verl.run_config import PromptSettings, RunConfig
from relay_verl.tokenization import chat_ids
from tests.helpers.errors import names, one_line
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

TRUSTING = PromptSettings({}, trust_remote_code=True)

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
SYSTEM = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "7*8?"}]


def save_model(folder: Path, template: str | None = TEMPLATE, words: list[bytes] = BPE_WORDS) -> str:
    tokenizer = make_bpe(words)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    return str(folder)


def own_code(folder: Path, template: str | None = TEMPLATE) -> str:
    """A model whose tokenizer is a class of its own."""
    save_model(folder, template)
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text())
    described |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    file.write_text(json.dumps(described))
    (folder / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n\n\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    return str(folder)


def rows(*prompts: Any) -> list[dict[str, Any]]:
    made = [to_row(data_source="x", question=f"{i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(8)]
    return made + [{**made[0], "prompt": prompt, "extra_info": {"id": str(prompt)}} for prompt in prompts]


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A composed config that passes; its last row has a system message."""
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    write_parquet(tmp_path / "rows.parquet", rows(SYSTEM))
    files = str(tmp_path / "rows.parquet")
    return OmegaConf.create(
        {
            "data": {
                "train_files": files,
                "val_files": files,
                "prompt_key": "prompt",
                "train_batch_size": 8,
                "max_response_length": 64,
            },
            "actor_rollout_ref": {
                "model": {"path": save_model(tmp_path / "student")},
                "actor": {"ppo_mini_batch_size": 8, "use_dynamic_bsz": True},
                "rollout": {"n": 8},
            },
            "trainer": {"n_gpus_per_node": 8, "nnodes": 1},
            "relay": {"teacher": {"path": save_model(tmp_path / "teacher")}},
        }
    )


def completion(token_ids: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": "7", "finish_reason": "stop", "stop_reason": None, "token_ids": token_ids}]
    }


# ---- training ----


def test_a_config_that_passes(good: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check_config(good)
    assert "doubt" not in capsys.readouterr().err


def test_the_doctor_shows_every_kind_of_trial() -> None:
    names = {check.name for check in RECIPE}
    assert {"rows", "validation rows", "prompts", "lengths", "endpoints' answers", "loggers", "contradictions"} <= names


def test_a_student_without_a_chat_template(good: Any, tmp_path: Path) -> None:
    good.actor_rollout_ref.model.path = save_model(tmp_path / "bare", None)
    line = one_line(check_config, good)
    assert line.startswith(f"actor_rollout_ref.model.path: {tmp_path}/bare: ")
    assert "actor_rollout_ref.model.custom_chat_template" in line
    good.actor_rollout_ref.model.custom_chat_template = TEMPLATE
    check_config(good)


def test_a_student_whose_template_refuses_a_row(good: Any, tmp_path: Path) -> None:
    good.actor_rollout_ref.model.path = save_model(tmp_path / "strict", NO_SYSTEM)
    line = one_line(check_config, good)
    assert names(line, f"data.train_files: {tmp_path}/rows.parquet: row 9: ", "chat template", "actor_rollout_ref")
    assert "System role not supported" in line


def test_a_teacher_behind_a_text_bridge_whose_template_refuses_a_row(good: Any, tmp_path: Path) -> None:
    path = save_model(tmp_path / "strict", NO_SYSTEM, BPE_WORDS[:4])
    good.relay = {"teacher": {"path": path, "text_bridge": True}, "on_teacher_failure": "continue"}
    line = one_line(check_config, good)
    assert names(line, "", "row 9", "chat template", "relay.teacher.text_bridge")
    assert "System role not supported" in line


def test_arguments_of_the_template_are_tried(good: Any, tmp_path: Path) -> None:
    good.actor_rollout_ref.model.custom_chat_template = "{{ enable_thinking.lower() }}" + TEMPLATE
    good.data.apply_chat_template_kwargs = {"enable_thinking": False}
    assert names(one_line(check_config, good), "", "row 1", "chat template", "actor_rollout_ref.model.path")


def test_a_teacher_that_gives_no_token_ids(good: Any, fake_vllm: Any) -> None:
    good.relay = {"teacher": {"base_url": fake_vllm.url}}
    fake_vllm.routes["/v1/completions"] = completion(None)
    line = one_line(check_config, good)
    assert line.startswith(f"relay.teacher.base_url: {fake_vllm.url}: ")
    assert "token_ids" in line
    fake_vllm.routes["/v1/completions"] = completion([7])
    check_config(good)


def test_calls_are_tried_as_training_and_validation_send_them(good: Any, fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = completion([7])
    good.relay = {"teacher": {"base_url": fake_vllm.url, "temperature": 0.6, "top_k": 20}, "max_tokens_per_call": 6}

    def sent() -> set[tuple[Any, ...]]:
        fake_vllm.requests.clear()
        check_completions(training_trial(RunConfig(good)))
        bodies = [body for path, _, body in fake_vllm.requests if path == "/v1/completions"]
        return {(body["temperature"], body["top_k"], body["max_tokens"], "seed" in body) for body in bodies}

    assert sent() == {(0.6, 20, 6, False)}
    good.trainer.val_before_train = True
    assert sent() == {(0.6, 20, 6, False), (0.0, -1, 6, False)}, "greedy validation makes the teacher greedy"
    good.actor_rollout_ref.rollout.full_determinism = True
    good.trainer.val_before_train = False
    assert sent() == {(0.6, 20, 6, True)}


def test_only_rows_that_a_teacher_is_given_are_put_to_it(good: Any, tmp_path: Path) -> None:
    strict = {"path": save_model(tmp_path / "strict", NO_SYSTEM, BPE_WORDS[:4]), "text_bridge": True}
    other = {"path": good.relay.teacher.path}
    good.relay = {"teachers": [{**strict, "data_sources": ["y"]}, other]}
    check_prompts(training_trial(RunConfig(good)))
    good.relay = {"teachers": [{**strict, "data_sources": ["x"]}, other]}
    assert "row 9" in one_line(check_prompts, training_trial(RunConfig(good)))


# ---- lengths ----


def test_prompts_that_are_too_long_leave_too_few(good: Any, tmp_path: Path) -> None:
    short, *long = [[{"role": "user", "content": "7" * length}] for length in (10, *range(101, 109))]
    prompts = rows(short, *long)[8:]
    write_parquet(tmp_path / "long.parquet", prompts)
    files, tokenizer = str(tmp_path / "long.parquet"), read_tokenizer("k", good.actor_rollout_ref.model.path)
    good.data.train_files = good.data.val_files = files
    shortest, *_, longest = sorted(len(chat_ids(tokenizer, row["prompt"], {})) for row in prompts)
    good.data.max_prompt_length = longest
    assert not isinstance(check_lengths(RunConfig(good)), CheckWarning)
    good.data.max_prompt_length = shortest
    line = one_line(check_config, good)
    part = f"data.max_prompt_length={shortest}: of 9 prompts of data.train_files 1 fit, and at least 8 must; "
    assert line.startswith(part)
    assert names(line, "", "long.parquet", "row 2")
    good.data.train_batch_size = 1
    assert not isinstance(check_lengths(RunConfig(good)), CheckWarning), "the others are left out"
    good.data.filter_overlong_prompts = False
    assert isinstance(check_lengths(RunConfig(good)), CheckWarning)
    good.data.max_prompt_length = shortest - 1
    assert "of 9 prompts of data.train_files 0 fit" in one_line(check_lengths, RunConfig(good))


def test_the_context_holds_prompt_and_response_and_is_within_the_models(good: Any) -> None:
    good.data.max_prompt_length, good.actor_rollout_ref.rollout.max_model_len = 100, 164
    assert not isinstance(check_lengths(RunConfig(good)), CheckWarning)
    good.actor_rollout_ref.rollout.max_model_len = 163
    assert isinstance(check_lengths(RunConfig(good)), CheckWarning)
    config_file = Path(good.relay.teacher.path) / "config.json"
    described = {"model_type": "qwen3", "vocab_size": 400, "max_position_embeddings": 128}
    config_file.write_text(json.dumps(described))
    line = one_line(check_lengths, RunConfig(good))
    assert line.startswith("actor_rollout_ref.rollout.max_model_len=163: relay.teacher.path=")
    assert "128 positions" in line


# ---- as verl loads models ----


def test_a_tokenizer_of_the_models_own_code(tmp_path: Path) -> None:
    path = own_code(tmp_path / "own")
    assert "actor_rollout_ref.model.trust_remote_code=true" in one_line(read_tokenizer, "k", path)
    assert type(read_tokenizer("k", path, TRUSTING)).__name__ == "OwnTokenizer"
    teacher = TeacherSettings(path=path, text_bridge=True)
    assert type(load_tokenizer(teacher, None, TRUSTING)).__name__ == "OwnTokenizer"


def test_trust_remote_code_is_the_recipes(good: Any, tmp_path: Path) -> None:
    good.actor_rollout_ref.model.path = own_code(tmp_path / "own")
    good.relay.teacher.path = own_code(tmp_path / "own_teacher")
    assert "trust_remote_code=true" in one_line(check_config, good)
    good.actor_rollout_ref.model.trust_remote_code = True
    check_config(good)


def test_a_students_tokenizer_may_be_elsewhere(good: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    save_model(tmp_path / "wrong", words=BPE_WORDS[:4])
    good.actor_rollout_ref.model.path = str(tmp_path / "wrong")
    assert "differ in their tokenizers" in one_line(check_config, good)
    good.actor_rollout_ref.model.tokenizer_path = str(tmp_path / "student")
    check_config(good)
    assert not isinstance(check_tokenizers(RunConfig(good)), CheckWarning)
    good.actor_rollout_ref.model.tokenizer_path = "/no/such"
    assert one_line(check_student_model, RunConfig(good)).startswith(
        "actor_rollout_ref.model.tokenizer_path: /no/such does not"
    )


def test_check_teacher_reads_the_tokenizer_where_it_is(good: Any, tmp_path: Path) -> None:
    wrong = save_model(tmp_path / "wrong", words=BPE_WORDS[:4])
    teacher = TeacherSettings(path=good.relay.teacher.path)
    one_line(check_teacher, "relay.teacher", teacher, wrong)
    check_teacher("relay.teacher", teacher, wrong, PromptSettings({}, str(tmp_path / "student")))


# ---- a model hub that does not answer ----


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_vllm: Any) -> None:
    """An empty cache, and a hub at an address where nothing listens."""
    from huggingface_hub import constants

    fake_vllm.stop()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", fake_vllm.url.removesuffix("/v1"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def line_of(*arguments: str) -> str:
    """What a command says as its error."""
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, UserError), (result.exception, result.output)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.usefixtures("no_hub")
def test_hub_ids_without_a_hub_are_refused_by_every_command(good: Any, tmp_path: Path) -> None:
    hub, data, out = "owner/model", good.data.train_files, str(tmp_path / "out")
    tiny = ("--recipe", "relay_tiny")
    endpoint = "http://127.0.0.1:9/v1"
    suite = ("--benchmark", "math-500", "--source", f"math-500={data}", "--out", out, *tiny)
    lines = [
        line_of("filter", "--data", data, "--out", out, *tiny, f"relay.teacher.path={hub}"),
        line_of(
            *("filter", "--data", data, "--out", out, *tiny, "relay.teacher.path=null"),
            *(f"relay.teacher.base_url={endpoint}", f"actor_rollout_ref.model.path={hub}"),
        ),
        line_of("warmup-data", "--data", data, "--out", out, *tiny, "--student", hub),
        line_of("eval", *suite, "--student", hub, "--teacher", endpoint),
        line_of("eval", *suite, "--student", good.actor_rollout_ref.model.path, "--teacher", hub),
        line_of("eval", *suite, "--student", endpoint, "--teacher", endpoint, "--tokenizer", hub),
        line_of("bench", "filter", "--data", data, f"relay.teacher.path={hub}"),
        line_of("bench", "rollout", "--student", hub, "--teacher", hub),
        line_of("bench", "eval", "--student", hub, "--teacher", hub, "--benchmark", "math-500", "--source", data),
    ]
    assert [line for line in lines if f"{hub} is not in the hub's cache" not in line] == []


@pytest.mark.usefixtures("no_hub")
def test_tokenizers_by_hub_id_without_a_hub(good: Any) -> None:
    good.actor_rollout_ref.model.tokenizer_path = "owner/tokenizer"
    assert one_line(check_student_model, RunConfig(good)).startswith(
        "actor_rollout_ref.model.tokenizer_path: owner/tokenizer is"
    )
    good.relay = {"teacher": {"base_url": "http://127.0.0.1:9/v1", "text_bridge": True, "tokenizer": "owner/tokenizer"}}
    assert one_line(check_teacher_models, RunConfig(good)).startswith(
        "relay.teacher.tokenizer: owner/tokenizer is not in the hub"
    )


# ---- our commands ----


@pytest.fixture
def strict(good: Any, tmp_path: Path) -> str:
    return save_model(tmp_path / "strict", NO_SYSTEM)


def test_generators_put_a_row_through_the_template_before_a_model_starts(
    good: Any, strict: str, tmp_path: Path, fake_vllm: Any
) -> None:
    data, out, tiny = good.data.train_files, str(tmp_path / "out.parquet"), ("--recipe", "relay_tiny")
    lines = [
        line_of("filter", "--data", data, "--out", out, *tiny, f"relay.teacher.path={strict}"),
        line_of("warmup-data", "--data", data, "--out", out, *tiny, "--student", strict),
    ]
    for line in lines:
        assert "System role not supported" in line
        assert data in line


def test_the_filter_tries_its_endpoint(good: Any, tmp_path: Path, fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = completion(None)
    line = line_of(
        *("filter", "--data", good.data.train_files, "--out", str(tmp_path / "out.parquet"), "--recipe", "relay_tiny"),
        *("relay.teacher.path=null", f"relay.teacher.base_url={fake_vllm.url}"),
        f"actor_rollout_ref.model.path={good.actor_rollout_ref.model.path}",
    )
    assert fake_vllm.url in line
    assert "token_ids" in line
    sent = [body for path, _, body in fake_vllm.requests if path == "/v1/completions"]
    assert {(body["temperature"], body["max_tokens"]) for body in sent} <= {(0.7, 16), (0.7, 72)}
    assert all("seed" in body for body in sent)


def test_an_evaluation_tries_its_endpoints_as_each_policy_asks(good: Any, tmp_path: Path, fake_vllm: Any) -> None:
    def refuse_bad_words(body: dict[str, Any]) -> Any:
        if body.get("bad_words"):
            return 400, {"error": {"message": "Unsupported parameter: bad_words"}}
        return completion(make_bpe(BPE_WORDS).encode("\\boxed{7}"))

    fake_vllm.routes["/v1/completions"] = refuse_bad_words
    line = line_of(
        *("eval", "--benchmark", "math-500", "--source", f"math-500={good.data.train_files}", "--recipe", "relay_tiny"),
        *("--student", fake_vllm.url, "--tokenizer", good.actor_rollout_ref.model.path, "--out", str(tmp_path / "out")),
        *("--policy", "student_alone", "--policy", "teacher_free"),
    )
    assert "bad_words" in line
    assert fake_vllm.url in line


def test_a_judge_that_says_nothing_is_refused_in_time(
    tmp_path: Path, fake_vllm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from relay_verl.judging.judge import Judge
    from relay_verl.preflight import commands

    monkeypatch.setattr(commands, "JUDGE_DEADLINE_S", 0.3)
    fake_vllm.routes["/v1/chat/completions"] = lambda body: time.sleep(2.0)
    line = one_line(commands.check_judge, Judge(fake_vllm.url, "big"))
    assert fake_vllm.url in line
