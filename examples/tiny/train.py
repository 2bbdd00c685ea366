"""Train a recipe of the tiny world with verl's own trainer, as the command line does, and show how far it is.

    VERL_PLATFORM=cpu RELAY_TINY_DIR=... python -m verl.trainer.main_ppo +recipe=relay_tiny

`train` runs that command in a process of its own with a log, a metrics file, a page of samples and a folder for the
trained student. It skips it when that folder is already there; a run that was stopped goes on at its last checkpoint.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from relay_verl.checkpoints.export import export
from relay_verl.cluster import compose
from relay_verl.evaluation.trace import write_trace

POLL_S = 1.0


@dataclass(frozen=True)
class Run:
    """Where a training run leaves its things."""

    folder: Path
    """Everything of the run."""

    @property
    def metrics(self) -> Path:
        """verl's metrics, one JSON line a step."""
        return self.folder / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What the trainer printed."""
        return self.folder / "train.log"

    @property
    def student(self) -> Path:
        """The trained student, a Hugging Face folder."""
        return self.folder / "student"


def train(recipe: str, pair: Path, folder: Path, *, seed: int = 1, overrides: Sequence[str] = ()) -> Run:
    """Train `recipe` on the models and data in `pair`.

    Raises:
        SystemExit: the trainer failed; names its log.
    """
    run = Run(folder.resolve())
    if (run.student / "config.json").is_file():
        print(f"{recipe}: {run.student} is there already")
        return run
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = run.folder / "checkpoints"
    os.environ["RELAY_TINY_DIR"] = str(pair.resolve())
    overrides = [f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}", *overrides]
    num_steps = compose(recipe, overrides).trainer.total_training_steps
    command = [sys.executable, "-m", "verl.trainer.main_ppo", f"+recipe={recipe}", *overrides]
    command += [f"trainer.default_local_dir={checkpoints}", f"hydra.run.dir={run.folder}/hydra"]
    environment = os.environ | {
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(run.metrics),
        "TENSORBOARD_DIR": str(run.folder / "tensorboard"),
        "HF_HUB_OFFLINE": "1",
    }
    with run.log.open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=run.folder)
        _watch(process, run.metrics, num_steps, recipe)
    if process.returncode:
        last = run.log.read_text(errors="replace").strip().splitlines()[-1]
        sys.exit(f"{recipe}: the trainer ended with code {process.returncode}: {last}\n{run.log} is its log")
    write_trace([checkpoints / "samples"], run.folder / "samples.html")
    export(checkpoints / f"global_step_{num_steps}", run.student, metrics=run.metrics)
    shutil.rmtree(checkpoints)
    return run


def _watch(process: subprocess.Popen[bytes], metrics: Path, num_steps: int, name: str) -> None:
    """Show the steps done until the trainer ends."""
    started = time.monotonic()
    with tqdm(total=num_steps, desc=f"{name}: starting engines", unit="step") as bar:
        while process.poll() is None:
            time.sleep(POLL_S)
            steps = read_steps(metrics)
            if steps and bar.n == 0:
                bar.set_description(name)
                bar.start_t = bar._time()  # the engines' start is no part of a step's time
            bar.update(len(steps) - bar.n)
            if steps:
                last = steps[-1]
                bar.set_postfix(accuracy=f"{last['relay/accuracy']:.2f}", calls=f"{last['relay/call_rate']:.2f}")
    print(f"{name}: {len(read_steps(metrics))} steps in {(time.monotonic() - started) / 60:.1f} min")


def read_steps(metrics: Path) -> list[dict[str, float]]:
    """The metrics of every training step that is logged; of a step that a resumed run did again, the later ones."""
    if not metrics.exists():
        return []
    steps: dict[int, dict[str, float]] = {}
    for line in metrics.read_text().splitlines():
        try:
            step, data = (record := json.loads(line))["step"], record["data"]
        except (ValueError, KeyError):  # the line being written
            continue
        if "relay/accuracy" in data:
            steps[step] = data
    return [steps[step] for step in sorted(steps)]
