"""Train a recipe with verl's own trainer, as the command line does, and show how far it is.

    python -m verl.trainer.main_ppo +recipe=relay_tiny

`train` runs that command in a process of its own with a log, a metrics file, a page of samples and a folder for the
trained student. It skips it when that folder is already there; a run that was stopped starts at its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from relay_verl.checkpoints.export import keep_facts, renew_card
from relay_verl.checkpoints.integrity import kept_in
from relay_verl.checkpoints.metrics_log import read_log
from relay_verl.jobs.byproducts import by_product
from relay_verl.jobs.progress import LINE_S, Lines
from relay_verl.pages.collect import write_trace
from relay_verl.pipeline.processes import StageError, ending_with, failure, relay_verl, trainer_folders
from relay_verl.pipeline.processes import run as run_command
from relay_verl.recipes.compose import compose

POLL_S = 1.0


@dataclass(frozen=True)
class Run:
    """Where a training run leaves its files."""

    folder: Path
    """All of them."""

    @property
    def metrics(self) -> Path:
        """verl's metrics, one JSON line a step."""
        return self.folder / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What the trainer printed."""
        return self.folder / "train.log"

    @property
    def facts(self) -> Path:
        """What the last checkpoint says of itself, without its weights (`relay_verl.checkpoints.export.keep_facts`)."""
        return self.folder / "checkpoint"

    @property
    def student(self) -> Path:
        """The trained student, a Hugging Face folder."""
        return self.folder / "student"


def train(recipe: str, folder: Path, *, overrides: Sequence[str] = (), variables: Mapping[str, str] = {}) -> Run:
    """Train `recipe` in `folder`.

    Args:
        recipe: its name.
        folder: everything of the run.
        overrides: of the recipe; they have to give `trainer.total_training_steps` if the recipe does not.
        variables: environment variables to add.

    Raises:
        StageError: the trainer failed; names its log.
    """
    run = Run(folder.resolve())
    if (run.student / "config.json").is_file():
        print(f"{recipe}: {run.student} is there already")
        return run
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = run.folder / "checkpoints"
    os.environ |= variables  # the recipe's paths are read here, too
    num_steps = compose(recipe, overrides).trainer.total_training_steps
    command = [sys.executable, "-m", "verl.trainer.main_ppo", f"+recipe={recipe}", *overrides]
    command += trainer_folders(checkpoints, run.folder)
    environment = os.environ | {
        "VERL_FILE_LOGGER_PATH": str(run.metrics),
        "TENSORBOARD_DIR": str(run.folder / "tensorboard"),
        "HF_HUB_OFFLINE": "1",
    }
    with run.log.open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=run.folder)
        try:
            with ending_with(process):
                _watch(process, run.metrics, num_steps, recipe)
        except KeyboardInterrupt as error:
            error.add_note(kept_in(checkpoints))
            raise
    if process.returncode:
        raise StageError(failure(command, process.returncode, run.log))
    if (checkpoints / "samples").is_dir():  # of few steps chance may have chosen none
        with by_product("the page of samples"):
            title = f"{recipe}: responses of the training, steps 1 to {num_steps}"
            write_trace([checkpoints / "samples"], run.folder / "samples.html", title=title)
    # in a process of its own, for the weights' memory goes back to the system when that ends
    checkpoint = checkpoints / f"global_step_{num_steps}"
    keep_facts(checkpoint, run.facts)
    run_command(relay_verl("export", str(checkpoint), str(run.student), "--metrics", str(run.metrics)), log=run.log)
    shutil.rmtree(checkpoints)
    return run


def put_on_card(run: Run, results: Sequence[Path]) -> None:
    """Write the student's model card again, with what `results` folders of an evaluation say of it."""
    with by_product(f"the results on the model card of {run.student}"):
        renew_card(run.facts, run.student, run.metrics, results)


def _watch(process: subprocess.Popen[bytes], metrics: Path, num_steps: int, name: str) -> None:
    """Show the steps done until the trainer ends; off a terminal a line a step, and one every LINE_S seconds."""
    started = shown_at = time.monotonic()
    is_terminal = sys.stderr.isatty()
    with tqdm(
        total=num_steps,
        desc=f"{name}: starting engines",
        unit="step",
        file=sys.stderr if is_terminal else Lines(sys.stderr),
        mininterval=float("inf"),  # shown by hand
    ) as bar:
        while process.poll() is None:
            time.sleep(POLL_S)
            steps = read_steps(metrics)
            if steps and bar.n == 0:
                bar.set_description(name, refresh=False)
                bar.start_t = bar._time()  # the engines' start is not part of a step's time
            is_new = len(steps) > bar.n
            bar.update(len(steps) - bar.n)
            if steps:
                last = steps[-1]
                figures = {"accuracy": f"{last['relay/accuracy']:.2f}", "calls": f"{last['relay/call_rate']:.2f}"}
                bar.set_postfix(figures, refresh=False)
            if is_new or time.monotonic() - shown_at > (POLL_S if is_terminal else LINE_S):
                shown_at = time.monotonic()
                bar.refresh()
    print(f"{name}: {len(read_steps(metrics))} steps in {(time.monotonic() - started) / 60:.1f} min")


def read_steps(metrics: Path) -> list[dict[str, Any]]:
    """The metrics of every training step that is logged; of a step that a resumed run did again, the later ones."""
    try:
        log = read_log(metrics)
    except (OSError, ValueError):  # not there yet, or damaged: whoever draws it says so
        return []
    return [data for data in log.values() if "relay/accuracy" in data]
