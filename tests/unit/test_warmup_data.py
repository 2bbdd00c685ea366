"""The warm-up's rows: the ids that were sampled, commands by the law, loss on the response; how SFT reads them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from relay_verl.config import ConfigError
from relay_verl.data.report import report_filter, report_warmup
from relay_verl.data.warmup_dataset import WarmupDataset
from relay_verl.protocol import find_calls, strip_calls

from .generators_for_tests import ChatTokenizer, SeededEngine, filter_job, run, warmup_job, write_questions

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
    with pytest.raises(ConfigError, match=r"data.max_length=40: .*warmup.parquet: a row has \d+ tokens"):
        read(made, max_length=40)
    with pytest.raises(ConfigError, match=r"data.truncation=left: allowed: right, error"):
        read(made, truncation="left")


def test_several_files_and_a_bound(made: Path) -> None:
    twice = WarmupDataset(parquet_files=[str(made), str(made)], tokenizer=None, config=config())
    assert len(twice) == 2 * len(read(made))
    assert len(WarmupDataset(parquet_files=[str(made)], tokenizer=None, config=config(), max_samples=3)) == 3


def test_what_is_no_warm_up_data_is_one_line(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"messages": ["hi"]}), other)
    with pytest.raises(ConfigError, match="is no warm-up data: no column input_ids, loss_mask, is_finished"):
        read(other)
    other.write_text("text")
    with pytest.raises(ConfigError, match=r"other.parquet: .*"):
        read(other)
    columns = {"input_ids": [[1, 2]], "loss_mask": [[0, 1]], "is_finished": [False]}
    pq.write_table(pa.table(columns), other)
    with pytest.raises(ConfigError, match="no finished response"):
        read(other)


RELAY = {"relay": {"max_calls": 0, "warmup": {"max_exponent": 3}}}


def test_the_reports_say_what_was_made_and_draw_it(made: Path, tmp_path: Path) -> None:
    line = report_warmup(made, OmegaConf.create(RELAY))
    calls = sum(len(row) for row in pq.read_table(made)["calls"].to_pylist())
    assert f"240 samples, {calls} commands" in line
    assert made.with_name("warmup.parquet.png").read_bytes().startswith(PNG)
    source = write_questions(tmp_path / "questions.parquet", 30)
    out = tmp_path / "train.parquet"
    run(filter_job(source, SeededEngine(), stop_at=0.5), source, out)
    line = report_filter(out, OmegaConf.create(RELAY))
    assert "of 30 queries have a pass rate of at least 0.5" in line
    assert "stopped early" in line
    assert out.with_name("train.parquet.png").read_bytes().startswith(PNG)


def test_the_manifest_says_how_it_came_about(made: Path) -> None:
    manifest = json.loads(made.with_name("warmup.parquet.manifest.json").read_text())
    assert manifest["num_queries"] == 60
    assert manifest["job"]["kind"] == "warmup-data"
    assert len(manifest["job"]["data"][0]) == 64, "the hash of the questions"
    assert {"python", "relay-verl", "torch", "transformers"} <= set(manifest["versions"])
