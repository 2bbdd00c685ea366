"""The generators over real vLLM, killed in the middle: every query exactly once, and what was finished stays.

Both run at the same time: much of either is waiting for an engine to start.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.killing import finished, kill_when

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

GENERATORS: dict[str, tuple[list[str], int]] = {
    # command: options, after how many finished queries it is killed
    "filter": ([], 30),
    "warmup-data": (["--student", "{pair}/student"], 25),
}
EVERY = 3
"""One in so many of the pair's questions is asked."""


@dataclass(frozen=True)
class Resumed:
    """What a generator left that was killed and started again."""

    before: dict[str, str]
    """The results that were finished when it was killed."""
    rows: pd.DataFrame
    manifest: dict[str, Any]


@pytest.fixture(scope="module")
def questions(pair: Path) -> pd.DataFrame:
    return pd.read_parquet(pair / "questions.parquet").iloc[::EVERY]


@pytest.fixture(scope="module")
def resumed(pair: Path, questions: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resumed]:
    folder = tmp_path_factory.mktemp("generators")
    questions.to_parquet(folder / "questions.parquet")
    with ThreadPoolExecutor(len(GENERATORS)) as pool:
        runs = {command: pool.submit(kill_and_resume, command, pair, folder) for command in GENERATORS}
    return {command: run.result() for command, run in runs.items()}


def kill_and_resume(command: str, pair: Path, folder: Path) -> Resumed:
    options, num_finished = GENERATORS[command]
    out = folder / f"{command}.parquet"
    arguments = [sys.executable, "-m", "relay_verl", command, "--recipe", "relay_tiny"]
    arguments += ["--data", str(folder / "questions.parquet"), "--out", str(out)]
    arguments += [option.format(pair=pair) for option in options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    work = out.with_name(f"{out.name}.work")
    log = folder / f"{command}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)
        try:
            kill_when(process, work, num_finished)
        finally:
            process.terminate()
        before = finished(work)
        done = subprocess.run(arguments, env=environment, stdout=output, stderr=output, timeout=600)
    assert done.returncode == 0, log.read_text(errors="replace")[-3000:]
    manifest = json.loads(out.with_name(f"{out.name}.manifest.json").read_text())
    return Resumed(before, pd.read_parquet(out), manifest)


@pytest.mark.parametrize("command", GENERATORS)
def test_what_was_finished_when_it_was_killed_is_kept(command: str, resumed: dict[str, Resumed]) -> None:
    num_finished = GENERATORS[command][1]
    assert resumed[command].manifest["num_resumed"] == len(resumed[command].before) >= num_finished


def test_the_filter_has_every_query_once(resumed: dict[str, Resumed], questions: pd.DataFrame) -> None:
    rows = resumed["filter"].rows
    assert [extra["id"] for extra in rows["extra_info"]] == [extra["id"] for extra in questions["extra_info"]]
    assert {count["num_done"] for count in rows["teacher_pass"]} == {10}


def test_the_warm_up_data_has_every_sample_once(resumed: dict[str, Resumed], questions: pd.DataFrame) -> None:
    rows = resumed["warmup-data"].rows
    assert Counter(rows["id"]) == Counter({extra["id"]: 6 * 4 for extra in questions["extra_info"]})
    assert not rows.duplicated(["id", "sample", "placement"]).any()
