"""The warm-up's rows: the ids that were sampled, commands by the law, loss on the response; how SFT reads them."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from relay_verl.config import RelaySettings, WarmupSettings
from relay_verl.data.generate import plan_filter, plan_warmup_data
from relay_verl.data.report import report_filter, report_warmup
from relay_verl.data.warmup import DrawnCall
from relay_verl.data.warmup_generator import breaks_box
from relay_verl.errors import JobError, UserError
from relay_verl.grading.answers import last_boxed
from relay_verl.protocol import find_calls, strip_calls
from relay_verl.run_config import RunConfig
from relay_verl.tokenization import TokenBytes
from relay_verl.trainer.warmup_dataset import WarmupDataset
from tests.helpers.generators import ChatTokenizer, SeededEngine, filter_job, run, warmup_job, write_questions

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warmup")
    source = write_questions(folder / "questions.parquet", 60)
    run(warmup_job(source, SeededEngine()), source, folder / "warmup.parquet")
    return folder / "warmup.parquet"


def config(**changes: Any) -> Any:
    return OmegaConf.create({"max_length": 512, "truncation": "error", **changes})


def read(path: Path | str, **changes: Any) -> WarmupDataset:
    return WarmupDataset(parquet_files=str(path), tokenizer=None, config=config(**changes), max_samples=-1)


def test_a_row_is_what_was_sampled_and_its_commands(made: Path) -> None:
    tokenizer = ChatTokenizer()
    rows = pq.read_table(made).to_pylist()
    assert len(rows) == 60 * 2 * 2
    sampled: dict[tuple[str, int], bytes] = {}
    for row in rows:
        prompt, response = row["input_ids"][: row["num_prompt_tokens"]], row["input_ids"][row["num_prompt_tokens"] :]
        assert tokenizer.decode(prompt).startswith("user: What is ")
        assert row["loss_mask"] == [0] * len(prompt) + [1] * len(response)
        assert row["is_finished"] == (response[-1] == tokenizer.eos_token_id)
        text = tokenizer.decode(response)
        assert [call.num_tokens for call in find_calls(text)] == [call["num_tokens"] for call in row["calls"]]
        own = strip_calls(text).encode()
        assert len(own) + row["is_finished"] == row["num_own_tokens"]
        assert sampled.setdefault((row["id"], row["sample"]), own) == own, "placements share their sample"
        for call in row["calls"]:
            assert call["num_tokens"] == min(call["num_drawn"], row["num_own_tokens"] - call["position"])
    assert {len(row["calls"]) for row in rows} == {0, 1, 2, 3}
    assert len({row["seed"] for row in rows}) == len(rows)


def test_sft_reads_the_ids_as_they_are_and_leaves_out_what_was_cut_off(made: Path) -> None:
    rows = [row for row in pq.read_table(made).to_pylist() if row["is_finished"]]
    dataset = read(made)
    assert 0 < len(rows) < 240, "some ran into the limit"
    assert len(dataset) == len(rows)
    for index in (0, len(rows) // 2, len(rows) - 1):
        item = dataset[index]
        assert item["input_ids"].tolist() == rows[index]["input_ids"]
        assert item["loss_mask"].tolist() == rows[index]["loss_mask"]
        assert item["position_ids"].tolist() == list(range(len(rows[index]["input_ids"])))


def test_a_long_row_is_cut_or_refused(made: Path) -> None:
    assert max(len(read(made, max_length=40, truncation="right")[i]["input_ids"]) for i in range(20)) == 40
    with pytest.raises(UserError, match=r"data.max_length=40: .*warmup.parquet: a row has \d+ tokens"):
        read(made, max_length=40)
    with pytest.raises(UserError, match=r"data.truncation=left: allowed: right, error"):
        read(made, truncation="left")


def test_several_files_and_a_bound(made: Path) -> None:
    twice = WarmupDataset(parquet_files=[str(made), str(made)], tokenizer=None, config=config())
    assert len(twice) == 2 * len(read(made))
    assert len(WarmupDataset(parquet_files=[str(made)], tokenizer=None, config=config(), max_samples=3)) == 3


def test_what_is_no_warm_up_data_is_one_line(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"messages": ["hi"]}), other)
    with pytest.raises(UserError, match="is not warm-up data: no column input_ids, loss_mask, is_finished"):
        read(other)
    other.write_text("text")
    with pytest.raises(UserError, match=r"other.parquet: .*"):
        read(other)
    columns = {"input_ids": [[1, 2]], "loss_mask": [[0, 1]], "is_finished": [False]}
    pq.write_table(pa.table(columns), other)
    with pytest.raises(UserError, match="no finished response"):
        read(other)


SETTINGS = RelaySettings(max_calls=0, warmup=WarmupSettings(max_exponent=3))


def test_the_reports_say_what_was_made_and_draw_it(made: Path, tmp_path: Path) -> None:
    line = report_warmup(made, SETTINGS)
    calls = sum(len(row) for row in pq.read_table(made)["calls"].to_pylist())
    assert f"240 samples, {calls} commands" in line
    assert made.with_name("warmup.parquet.png").read_bytes().startswith(PNG)
    source = write_questions(tmp_path / "questions.parquet", 30)
    out = tmp_path / "train.parquet"
    run(filter_job(source, SeededEngine(), stop_at=0.5), source, out)
    line = report_filter(out, SETTINGS.filter)
    assert "of 30 queries have a pass rate of at least 0.5" in line
    assert "stopped early" in line
    assert out.with_name("train.parquet.png").read_bytes().startswith(PNG)


def test_the_manifest_says_how_it_came_about(made: Path) -> None:
    manifest = json.loads(made.with_name("warmup.parquet.manifest.json").read_text())
    assert manifest["num_queries"] == 60
    assert manifest["job"]["kind"] == "warmup-data"
    assert len(manifest["job"]["data"][0]) == 64, "the hash of the questions"
    assert {"python", "relay-verl", "torch", "transformers"} <= set(manifest["versions"])


# ---- commands inside the answer's box ----

BOXES = [
    # response, position of a command in characters, whether it breaks the answer's box, why
    (r"so \boxed{42}.", 0, False, "at the start"),
    (r"so \boxed{42}.", 3, False, "right before the backslash"),
    (r"so \boxed{42}.", 4, True, "behind the backslash"),
    (r"so \boxed{42}.", 6, True, "inside the word"),
    (r"so \boxed{42}.", 9, True, "before the brace"),
    (r"so \boxed{42}.", 10, True, "behind it"),
    (r"so \boxed{42}.", 11, True, "inside the number"),
    (r"so \boxed{42}.", 12, True, "before the closing brace"),
    (r"so \boxed{42}.", 13, False, "right behind the box"),
    (r"\boxed{1} \boxed{2}", 7, False, "in a box that is not the answer"),
    (r"\boxed{1} \boxed{2}", 17, True, "in the last one"),
    (r"\boxed{\frac{1}{2}}", 13, True, "in a fraction in the box"),
    (r"so 42", 3, False, "no box at all"),
    (r"so \boxed{42", 11, False, "nor a whole one"),
    (r"é \boxed{é}", 2, False, "offsets are in tokens, not in characters"),
]


@pytest.mark.parametrize(("response", "position", "is_broken", "why"), BOXES, ids=[case[-1] for case in BOXES])
def test_a_command_inside_the_answers_box_is_marked(response: str, position: int, is_broken: bool, why: str) -> None:
    tokenizer = ChatTokenizer()
    offset = len(response[:position].encode())
    calls = [DrawnCall(offset, 5, 5)]
    assert breaks_box(tokenizer.encode(response), calls, TokenBytes(tokenizer)) is is_broken, why
    both = [DrawnCall(0, 1, 1), *calls] if offset else calls
    assert breaks_box(tokenizer.encode(response), both, TokenBytes(tokenizer)) is is_broken, "another one before it"
    assert not breaks_box(tokenizer.encode(response), [], TokenBytes(tokenizer)), "no command breaks nothing"


def test_the_manifest_and_the_report_count_the_broken_boxes(made: Path) -> None:
    """By another way: a row is broken where its last box holds a command, or is gone."""
    rows = pq.read_table(made).to_pylist()
    tokenizer = ChatTokenizer()
    expected = []
    for row in rows:
        text = tokenizer.decode(row["input_ids"][row["num_prompt_tokens"] :])
        marked = re.sub(r"<call>[0-9]+</call>", "\0", text)
        expected.append(last_boxed(marked) != last_boxed(strip_calls(text)))
    assert [row["breaks_box"] for row in rows] == expected
    assert 0 < sum(expected) < len(rows)
    summary = json.loads(made.with_name("warmup.parquet.manifest.json").read_text())["summary"]
    assert summary == {
        "num_rows": len(rows),
        "num_finished": sum(row["is_finished"] for row in rows),
        "num_with_commands": sum(bool(row["calls"]) for row in rows),
        "num_boxes_broken": sum(expected),
    }
    line = report_warmup(made, SETTINGS)
    assert f"in {sum(expected)} samples a command stands inside the answer's \\boxed{{}}" in line


# ---- a fixed length (5.4) ----


def test_a_fixed_length_is_what_all_commands_say(tmp_path: Path) -> None:
    """And the loss covers the whole command; places and samples are those of the law's data."""
    source = write_questions(tmp_path / "questions.parquet", 20)
    run(warmup_job(source, SeededEngine()), source, tmp_path / "law.parquet")
    run(warmup_job(source, SeededEngine(), written_length=20), source, tmp_path / "fixed.parquet")
    law, fixed = (pq.read_table(tmp_path / name).to_pylist() for name in ("law.parquet", "fixed.parquet"))
    numbers = {call["num_tokens"] for row in fixed for call in row["calls"]}
    assert numbers == {20}
    for one, other in zip(law, fixed, strict=True):
        assert [call["position"] for call in one["calls"]] == [call["position"] for call in other["calls"]]
        response = other["input_ids"][other["num_prompt_tokens"] :]
        assert [call.num_tokens for call in find_calls(ChatTokenizer().decode(response))] == [20] * len(other["calls"])
        assert other["loss_mask"] == [0] * other["num_prompt_tokens"] + [1] * len(response)
    settings = RelaySettings(policy="fixed_20", warmup=WarmupSettings(max_exponent=3))
    assert "commands" in report_warmup(tmp_path / "fixed.parquet", settings)


def planned(folder: Path, **relay: Any) -> RunConfig:
    """A recipe's part that the generators read."""
    data = {"max_response_length": 30, "apply_chat_template_kwargs": {}}
    model = {"actor_rollout_ref": {"model": {"path": "student"}}}
    return RunConfig(OmegaConf.create({"relay": {"teacher": {"path": "big"}, **relay}, "data": data, **model}))


def test_the_recipe_of_the_row_decides_what_its_warm_up_says(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 2)
    for relay, number in (
        ({"policy": "fixed_20"}, 20),
        ({"policy": "fixed_20", "fixed_command": "delivered"}, None),
        ({}, None),
    ):
        plan = plan_warmup_data(planned(tmp_path, **relay), source, "student")
        assert plan.spec["written_length"] == number
        assert plan.spec["sampling"] == {"temperature": 1.0, "top_p": 1.0, "top_k": -1}
        worker = plan.make_worker(SeededEngine(), ChatTokenizer())
        rows = [row for _, query in source.queries() for row in asyncio.run(worker.process(query))]
        assert {call["num_tokens"] for row in rows for call in row["calls"]} <= ({number} if number else set(range(31)))


def test_data_of_another_fixed_length_is_another_job(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 2)
    for policy, fails in (("fixed_20", False), ("fixed_100", True)):
        plan = plan_warmup_data(planned(tmp_path, policy=policy), source, "student")
        job = plan.job(SeededEngine(), ChatTokenizer())
        if fails:
            with pytest.raises(JobError, match="written_length is 20 there and 100 here"):
                run(job, source, tmp_path / "warmup.parquet")
        else:
            run(job, source, tmp_path / "warmup.parquet")


def test_the_filter_samples_as_the_teacher_is_sampled(tmp_path: Path) -> None:
    source = write_questions(tmp_path / "questions.parquet", 2)
    teacher = {"path": "big", "top_p": 0.95, "top_k": 20}
    plan = plan_filter(planned(tmp_path, teacher=teacher), source)
    assert plan.spec["sampling"] == {"temperature": 0.7, "top_p": 0.95, "top_k": 20}
    assert plan_filter(planned(tmp_path), source).spec["sampling"] == {"temperature": 0.7, "top_p": 1.0, "top_k": -1}
