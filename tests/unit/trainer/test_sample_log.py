"""Responses of the training, kept to be read."""

import asyncio
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.grading import Verdict
from relay_verl.jobs import byproducts
from relay_verl.pages.collect import read_responses
from relay_verl.run_config import RunConfig
from relay_verl.trainer.sample_log import RESOLUTION, SampleLog
from relay_verl.types import RelayStatus, RelayTrajectory, Segment
from tests.helpers.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
PROMPT = {
    "uid": "u",
    "global_steps": 7,
    "raw_prompt": [{"role": "user", "content": "1+1="}],
    "data_source": "tiny/add",
    "extra_info": {"id": "q1"},
    "reward_model": {"ground_truth": "2"},
}


def sample(text: str, answer: str) -> tuple[RelayTrajectory, Verdict, float]:
    segments = [Segment("student", TOKENIZER.encode(text)), Segment("teacher", TOKENIZER.encode(answer))]
    verdict = Verdict(is_correct=answer == "2", answer=answer, status="graded")
    return RelayTrajectory([1, 2], segments, RelayStatus.COMPLETED), verdict, 0.5


def write(log: SampleLog, number: int) -> None:
    asyncio.run(log.write(number, PROMPT, [sample("so ", "2"), sample("hm ", "3")]))


def test_a_groups_samples_are_a_page_to_read(tmp_path: Path) -> None:
    write(SampleLog(tmp_path / "samples", 1.0, TOKENIZER), 5)
    first, second = read_responses([tmp_path / "samples"])
    assert (first.condition, first.benchmark, first.id, first.question) == ("step 7", "tiny/add", "q1", "1+1=")
    assert [(s["source"], s["text"]) for s in first.segments] == [("student", "so "), ("teacher", "2")]
    assert (first.is_correct, second.is_correct, second.sample, second.answer) == (True, False, 1, "3")
    assert first.latency_s == 0.5


def test_two_groups_of_a_step_are_one_condition(tmp_path: Path) -> None:
    for number in (5, 6):
        write(SampleLog(tmp_path, 1.0, TOKENIZER), number)
    assert [record.condition for record in read_responses([tmp_path])] == ["step 7"] * 4


CHOSEN = [
    # share, number, is written, why
    (1.0, RESOLUTION - 1, True, "all groups are"),
    (0.5, RESOLUTION // 2 - 1, True, "the lower half is"),
    (0.5, RESOLUTION // 2, False, "the upper half is not"),
    (0.0, 0, False, "none is"),
]


@pytest.mark.parametrize(("share", "number", "is_written", "why"), CHOSEN)
def test_a_group_is_chosen_by_its_number(tmp_path: Path, share: float, number: int, is_written: bool, why: str) -> None:
    write(SampleLog(tmp_path, share, TOKENIZER), number)
    assert bool(list(tmp_path.glob("*.jsonl"))) is is_written, why


def test_a_folder_that_cannot_be_written_costs_no_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byproducts, "_warned", set())
    (tmp_path / "samples").write_text("a file")
    write(SampleLog(tmp_path / "samples", 1.0, TOKENIZER), 5)
    assert str(tmp_path / "samples") in caplog.text


def test_the_share_is_that_of_a_step(tmp_path: Path) -> None:
    node = {"trainer": {"default_local_dir": str(tmp_path)}, "data": {"train_batch_size": 8}}
    relay = {"max_calls": 0, "num_logged_groups": 2.0}
    log = SampleLog.of(RunConfig(OmegaConf.create({**node, "relay": relay})), TOKENIZER)
    assert (log.folder, log.share) == (tmp_path / "samples", 0.25)


def test_a_folder_without_samples_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_responses([tmp_path])
