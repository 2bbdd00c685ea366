"""verl's loggers: those that the README names take our metrics and sample responses; the file's in a resumed run."""

import configparser
import json
from pathlib import Path

import pytest

from relay_verl.versions import is_installed
from tests.helpers.warm_python import WarmPython

ROOT = Path(__file__).parents[2]
RESUMED = """
import sys
import verl.utils.tracking as tracking  # the plugin is loaded with it
from relay_verl.checkpoints import metrics_log
if sys.argv[1] == "resumed":
    metrics_log.resume()
log = tracking.Tracking("p", "e", ["file"])
log.log({"relay/accuracy": 0.5}, step=int(sys.argv[2]))
log.finish()
"""
LOGGED = """
import sys
from verl.utils.tracking import Tracking, ValidationGenerationsLogger
from relay_verl.trainer.metrics import SampleStats, relay_metrics
samples = [SampleStats("completed", is_correct=True, num_tokens=3), SampleStats("completed", called=True, num_tokens=3)]
log = Tracking("relay", "relay_tiny", [sys.argv[1]], config={"trainer": {}, "relay": {"policy": "learned"}})
assert list(log.logger) == [sys.argv[1]], log.logger
log.log(relay_metrics([samples]), step=1)
ValidationGenerationsLogger("relay", "relay_tiny").log(log.logger, [("7*8=", "<call>2</call>56", 1.0)], 1)
log.finish()
"""


def run(python: WarmPython, code: str, *arguments: str, folder: Path, **variables: str) -> None:
    done = python.run("-c", code, *arguments, env=variables, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("second", "steps"), [("resumed", [1, 2]), ("anew", [2])])
def test_a_resumed_run_adds_to_its_log(tmp_path: Path, second: str, steps: list[int], warm_python: WarmPython) -> None:
    """A run that starts at the beginning empties it, as verl does."""
    path = tmp_path / "metrics.jsonl"
    for how, step in (("anew", "1"), (second, "2")):
        run(warm_python, RESUMED, how, step, folder=tmp_path, VERL_FILE_LOGGER_PATH=str(path))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == steps


def test_a_line_that_the_end_of_a_process_cut_is_cut_off(tmp_path: Path, warm_python: WarmPython) -> None:
    """Else the resumed run's first line is joined to it, and no reader takes either."""
    path = tmp_path / "metrics.jsonl"
    run(warm_python, RESUMED, "anew", "1", folder=tmp_path, VERL_FILE_LOGGER_PATH=str(path))
    with path.open("ab") as file:
        file.write(b'{"step": 2, "data": {"relay/acc')
    run(warm_python, RESUMED, "resumed", "2", folder=tmp_path, VERL_FILE_LOGGER_PATH=str(path))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


WHERE = {
    "tensorboard": {"TENSORBOARD_DIR": "log"},
    "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": "."},
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///log.db"},
    "trackio": {"TRACKIO_DIR": "log"},
}
"""Variables that keep each logger in the folder it runs in."""


@pytest.mark.parametrize("name", WHERE)
def test_a_logger_takes_metrics_and_sample_responses(tmp_path: Path, name: str, warm_python: WarmPython) -> None:
    from verl.utils.tracking import Tracking

    assert name in Tracking.supported_backend
    if not is_installed(name):
        extras = configparser.ConfigParser()
        extras.read(ROOT / "setup.cfg")
        assert extras["options.extras_require"][name].split() == [name], "it can be asked for"
        return
    run(warm_python, LOGGED, name, folder=tmp_path, **WHERE[name])
    assert any(path.is_file() for path in tmp_path.rglob("*"))
