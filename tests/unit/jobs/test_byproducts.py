"""By-products of a run: what fails costs itself and one warning, never the work."""

import asyncio
import io
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from relay_verl.checkpoints import metrics_log
from relay_verl.config import FilterSettings
from relay_verl.data import report
from relay_verl.jobs import byproducts, progress
from relay_verl.jobs.byproducts import by_product, cause_of
from relay_verl.messages import text_of
from relay_verl.pages.collect import read_responses
from relay_verl.report import summary, write
from relay_verl.trainer import step_line
from relay_verl.trainer.sample_log import SampleLog
from tests.unit.report.test_real_report import make_real_pair
from tests.unit.trainer.test_sample_log import PROMPT, TOKENIZER, sample


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test warns anew."""
    monkeypatch.setattr(byproducts, "_warned", set())
    yield


def test_a_failure_is_said_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    for what in ("the plot", "the plot", "the card"):
        with by_product(what):
            raise OSError("disk\nfull")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "the plot" in caplog.messages[0] and "disk full" in caplog.messages[0]
    assert "the card" in caplog.messages[1]


@given(st.text())
def test_a_cause_is_a_single_line(text: str) -> None:
    for kind in (ValueError, OSError, KeyError, RuntimeError):
        assert cause_of(kind(text)) and len(cause_of(kind(text)).splitlines()) == 1


def test_an_interrupt_ends_the_work() -> None:
    with pytest.raises(KeyboardInterrupt), by_product("the plot"):
        raise KeyboardInterrupt


# ---- logged groups of a training (bugs.md row 9) ----

QUESTIONS = [
    ("1+1=", "1+1=", "a text"),
    ([{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}], "1+1=", "parts"),
    ([{"type": "image"}, {"type": "text", "text": "1+1="}], "[image]1+1=", "a picture"),
    (np.array([{"type": "text", "text": "1+1="}], dtype=object), "1+1=", "parts as parquet gives them"),
    (None, "", "null"),
]
EXTRAS = [({"id": "q1"}, "q1"), ("a text", "u"), (None, "u"), ({}, "u"), ({"id": None}, "u"), (["x"], "u")]


@pytest.mark.parametrize(("content", "question", "why"), QUESTIONS, ids=[case[2] for case in QUESTIONS])
@pytest.mark.parametrize(("extra", "id"), EXTRAS, ids=[str(case[0]) for case in EXTRAS])
def test_rows_of_others_are_logged(content: Any, question: str, why: str, extra: Any, id: str, tmp_path: Path) -> None:
    prompt = {**PROMPT, "raw_prompt": [{"role": "user", "content": content}], "extra_info": extra}
    asyncio.run(SampleLog(tmp_path, 1.0, TOKENIZER).write(5, prompt, [sample("so ", "2")]))
    (record,) = read_responses([tmp_path])
    assert (record.question, record.id) == (question, id)


BROKEN: list[dict[str, Any]] = [
    {"raw_prompt": [3]},
    {"raw_prompt": None},
    {"global_steps": "seven"},
    {"reward_model": {}},
    {"data_source": "x", "uid": "u", "reward_model": None},
]


@pytest.mark.parametrize("changes", BROKEN, ids=str)
def test_a_row_that_cannot_be_logged_costs_no_group(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(SampleLog(tmp_path, 1.0, TOKENIZER).write(5, {**PROMPT, **changes}, [sample("so ", "2")]))
    assert "logged group" in caplog.text


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_content_has_a_text(content: object) -> None:
    assert isinstance(text_of(content), str)


# ---- verl's loggers ----


class Board:
    def __init__(self, error: Exception | None = None):
        self.error, self.steps = error, []

    def log(self, data: Any, step: int) -> None:
        if self.error:
            raise self.error
        self.steps.append(step)


def tracking() -> Any:
    """verl's own module with its classes, changed as the plugin changes it, without the logger's start."""
    from verl.utils import tracking as verls

    def finish(self: Any, exit_code: int = 0) -> None:
        raise RuntimeError("the server is away")

    log = getattr(verls.Tracking, "relay_verl_log", verls.Tracking.log)  # the plugin may have changed it already
    kind = type("Tracking", (), {"log": log, "finish": finish})
    samples = type("ValidationGenerationsLogger", (), {"log": lambda self, loggers, samples, step: 1 / 0})
    module = SimpleNamespace(Tracking=kind, ValidationGenerationsLogger=samples)
    for _ in range(2):  # a second call does nothing
        metrics_log.install(module)
    return module


def test_a_logger_that_fails_costs_its_own_metrics(caplog: pytest.LogCaptureFixture) -> None:
    module = tracking()
    run = module.Tracking()
    run.logger = {"tensorboard": Board(OSError("No space left on device")), "file": Board()}
    for step in (1, 2):
        run.log({"x": 1.0}, step)
    run.log({"x": 1.0}, 3, backend=["tensorboard"])
    run.finish()
    module.ValidationGenerationsLogger().log(["wandb"], [], 1)
    assert run.logger["file"].steps == [1, 2]
    assert [
        word in message for word, message in zip(("tensorboard", "end", "validation"), caplog.messages, strict=True)
    ]
    assert "No space left on device" in caplog.messages[0]


# ---- siblings ----


class FullDisk:
    """Standard error in a file on a disk that is full."""

    def __init__(self, is_terminal: bool):
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


class DeafEngine:
    """An engine whose counters cannot be read."""

    async def load(self) -> None:
        raise ConnectionError("no route to host")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_progress_bar_that_cannot_be_printed_costs_no_job(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REFRESH_S", 0.01)
    monkeypatch.setattr(progress, "LINE_S", 0.01)
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)  # one that stays taken is this test's alone

    async def job() -> int:
        meter = progress.TokenMeter({"student": DeafEngine()})
        async with progress.ProgressBar("eval", 3, meter, FullDisk(is_terminal)) as bar:  # type: ignore[arg-type]
            for _ in range(3):
                bar.update()
                await asyncio.sleep(0.02)
        return 3

    assert asyncio.run(job()) == 3
    another = threading.Thread(target=lambda: list(tqdm(range(3), file=io.StringIO())), daemon=True)
    another.start()
    another.join(60)
    assert not another.is_alive(), "other threads have their bars"


def test_a_picture_that_fails_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no font")

    monkeypatch.setattr(write, "share_figure", fail)
    monkeypatch.setattr(write, "calls_figure", fail)
    make_real_pair(tmp_path / "results")
    text = write.write_report([tmp_path / "results"], tmp_path / "out")
    assert "trained relay" in text and (tmp_path / "out" / "report.html").is_file()
    assert "no font" in caplog.text


def test_a_summary_that_cannot_be_computed_costs_no_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(summary, "summary_of", fail)
    make_real_pair(tmp_path)
    summary.write_summary(tmp_path / "relay-learned")
    assert "ZeroDivisionError" in caplog.text and not (tmp_path / "relay-learned" / "summary.json").exists()


def test_a_plot_of_data_that_fails_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "save", fail)
    counts = [{"num_samples": 4, "num_done": 4, "num_correct": number, "num_tokens": 9} for number in range(5)]
    monkeypatch.setattr(report, "_rows", lambda *_: iter([{report.COLUMN: count} for count in counts]))
    line = report.report_filter(tmp_path / "train.parquet", FilterSettings())
    assert "3 of 5 queries" in line and "picture" not in line
    assert "No space left on device" in caplog.text


def test_a_line_of_a_step_that_cannot_be_printed_costs_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type("Tracking", (), {"log": lambda self, data, step, backend=None: "logged"})
    step_line.install(SimpleNamespace(Tracking=kind))
    monkeypatch.setattr(sys, "stderr", FullDisk(is_terminal=False))
    for metrics in ({"relay/accuracy": 0.5}, {"relay/accuracy": None}, {"relay/accuracy": "x"}):
        assert kind().log(metrics, 1) == "logged"  # type: ignore[attr-defined]
