"""The authors' released checkpoint through `relay-verl eval`: hub ids, both chat templates, the release's settings.

Its files and the teacher's come from the hub's cache, with a small tokenizer in place of theirs; engines are scripts.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import JobError, UserError
from relay_verl.evaluation import runner
from relay_verl.recipes.attempts import RELEASED_CHECKPOINT
from relay_verl.traces.results import MANIFEST, read_result
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

TEACHER = "Qwen/Qwen3-8B"
QWEN3 = (  # as its authors': without `enable_thinking` a response begins with its thoughts
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{%- endif %}{%- endif %}"
)
WITHOUT_MODES = "{%- for m in messages %}[{{ m.role }}] {{ m.content }}\n{%- endfor %}"


def put_into_cache(cache: Path, name: str, template: str) -> None:
    """A model without weights, as the hub's cache has it."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(snapshot)
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": len(tokenizer)}
    (snapshot / "config.json").write_text(json.dumps(config))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the student is asked, in order. Nothing is downloaded, and no engine is started."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (RELEASED_CHECKPOINT, TEACHER):
        put_into_cache(tmp_path / "hub", name, QWEN3)
    asked: list[str] = []

    async def start(run: Any, models: dict[str, Any], tokenizer: Any, **_: Any) -> dict[str, ScriptedEngine]:
        def student(context: list[int]) -> str:
            asked.append(tokenizer.decode(context))
            return "so \\boxed{7}" if "</call>" in asked[-1] else "<call>3</call>"

        assert models.keys() == {RELEASED_CHECKPOINT, TEACHER}
        return {
            RELEASED_CHECKPOINT: ScriptedEngine(tokenizer, student),
            TEACHER: ScriptedEngine(tokenizer, lambda _: "3+4=7, yes"),
        }

    monkeypatch.setattr(runner, "start_models", start)
    monkeypatch.setattr(runner, "ray_cluster", lambda *_, **__: nullcontext())
    return asked


def evaluate(tmp_path: Path, *options: str) -> dict[str, Any]:
    """The job in the manifest."""
    rows = [to_row(data_source="x", question="3+4?", ground_truth="7", id="q", index=0)]
    write_parquet(tmp_path / "math.parquet", rows)
    command = ["eval", "--student", RELEASED_CHECKPOINT, "--teacher", TEACHER, "--row", "1.7b/relay_simple"]
    command += ["--benchmark", "math-500", "--source", f"math-500={tmp_path / 'math.parquet'}", "--num-workers", "0"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), *options])
    if result.exception:
        raise result.exception
    [record] = read_result(tmp_path / "out" / "learned").records
    assert (record.is_correct, record.num_calls) == (True, 1)
    return json.loads((tmp_path / "out" / "learned" / MANIFEST).read_text())["job"]


def test_it_is_measured_as_the_paper_says(tmp_path: Path, prompts: list[str]) -> None:
    job = evaluate(tmp_path)
    assert (job["student"], job["teacher"], job["policy"]) == (RELEASED_CHECKPOINT, TEACHER, "learned")
    assert job["template"] == {"enable_thinking": False}
    assert job["benchmarks"]["math-500"]["sampling"] == {"temperature": 0.0}
    assert (job["limits"]["max_tokens"], job["limits"]["max_calls"]) == (8192, None)
    assert prompts[0].endswith("<think>\n\n</think>")


def test_it_is_measured_as_the_release_does(tmp_path: Path, prompts: list[str]) -> None:
    job = evaluate(tmp_path, "--thinking", "--temperature", "0.7", "relay.max_calls=4")
    assert job["template"] == {"enable_thinking": True}
    assert job["benchmarks"]["math-500"]["sampling"]["temperature"] == 0.7
    assert job["limits"]["max_calls"] == 4
    assert prompts[0].endswith("<|im_start|>assistant")
    assert read_result(tmp_path / "out" / "learned").is_thinking


def test_a_template_without_a_thinking_mode_is_refused(tmp_path: Path, prompts: list[str]) -> None:
    for name in (RELEASED_CHECKPOINT, TEACHER):
        for file in (tmp_path / "hub").glob(f"models--{name.replace('/', '--')}/snapshots/*/*"):
            if file.name in ("chat_template.jinja", "tokenizer_config.json"):
                file.write_text(file.read_text().replace(QWEN3, WITHOUT_MODES))
    with pytest.raises(UserError, match=rf"--thinking .*chat template of {RELEASED_CHECKPOINT} has no thinking mode"):
        evaluate(tmp_path, "--thinking")
    assert prompts == [], "no model was asked"


def test_the_switch_and_its_key_at_once_are_refused(tmp_path: Path, prompts: list[str]) -> None:
    key = "data.apply_chat_template_kwargs.enable_thinking"
    with pytest.raises(UserError, match=rf"--thinking sets {key}=true, and {key}=false sets it, too"):
        evaluate(tmp_path, "--thinking", f"{key}=false")


def test_the_key_alone_does_the_same(tmp_path: Path, prompts: list[str]) -> None:
    job = evaluate(tmp_path, "data.apply_chat_template_kwargs.enable_thinking=true")
    assert job["template"] == {"enable_thinking": True}


@pytest.mark.parametrize("policy", ["teacher_free", "random_0.5", "router_0.5", "teacher_alone"])
def test_refusals_are_for_policies_with_commands(policy: str, tmp_path: Path, prompts: list[str]) -> None:
    with pytest.raises(UserError, match=f"--refusals 2: policy {policy} serves no command"):
        evaluate(tmp_path, "--policy", policy, "--refusals", "2")


def test_refusals_are_part_of_the_job(tmp_path: Path, prompts: list[str]) -> None:
    """A folder without them is not taken for one with them."""
    evaluate(tmp_path, "--refusals", "1")
    [record] = read_result(tmp_path / "out" / "learned").records
    assert [(one["is_correct"], one["answer"]) for one in record.refusals or ()] == [(True, "7")]
    with pytest.raises(JobError, match="num_refusals is 1 there"):
        evaluate(tmp_path)


def test_of_several_policies_those_with_commands_have_refusals(tmp_path: Path, prompts: list[str]) -> None:
    evaluate(tmp_path, "--policy", "learned", "--policy", "fixed_3", "--policy", "student_alone", "--refusals", "2")
    jobs = [read_result(tmp_path / "out" / policy).job for policy in ("learned", "fixed_3", "student_alone")]
    assert [job.get("num_refusals") for job in jobs] == [2, 2, None]
