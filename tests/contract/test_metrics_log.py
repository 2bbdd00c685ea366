"""verl's file logger in a run that resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import verl.utils.tracking as tracking  # the plugin is loaded with it
from relay_verl.checkpoints import metrics_log
if sys.argv[1] == "resumed":
    metrics_log.resume()
log = tracking.Tracking("p", "e", ["file"])
log.log({"relay/accuracy": 0.5}, step=int(sys.argv[2]))
log.finish()
"""


@pytest.mark.parametrize(("second", "steps"), [("resumed", [1, 2]), ("anew", [2])])
def test_a_resumed_run_adds_to_its_log(tmp_path: Path, second: str, steps: list[int]) -> None:
    """A run that starts at the beginning empties it, as verl does."""
    path = tmp_path / "metrics.jsonl"
    for how, step in (("anew", "1"), (second, "2")):
        subprocess.run(
            [sys.executable, "-c", CODE, how, step],
            check=True,
            timeout=120,
            env=os.environ | {"VERL_FILE_LOGGER_PATH": str(path)},
            cwd=tmp_path,
        )
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == steps
