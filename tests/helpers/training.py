"""A short training of the tiny recipe, as the end-to-end tests start it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay_verl.recipes.grammar import override

NUM_QUERIES, NUM_SAMPLES = 4, 4
NUM_ROWS = NUM_QUERIES * NUM_SAMPLES
SMALL = [
    f"data.train_batch_size={NUM_QUERIES}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={NUM_QUERIES}",
    f"actor_rollout_ref.rollout.n={NUM_SAMPLES}",
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={NUM_ROWS}",
    f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={NUM_ROWS}",
    f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={NUM_ROWS}",
]


def command(folder: Path, *overrides: str, recipe: str = "relay_tiny", python: str = sys.executable) -> list[str]:
    """verl's own trainer with everything it writes in `folder`."""
    where = [
        override("trainer.default_local_dir", folder / "checkpoints"),
        override("trainer.rollout_data_dir", folder / "rollouts"),
        override("hydra.run.dir", folder / "hydra"),
    ]
    return [python, "-m", "verl.trainer.main_ppo", f"+recipe={recipe}", *SMALL, *where, *overrides]


def loggers(folder: Path) -> dict[str, str]:
    """Where its loggers write, as environment variables."""
    return {"VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"), "TENSORBOARD_DIR": str(folder / "tensorboard")}


def start(
    arguments: Sequence[str], folder: Path, log: str, variables: Mapping[str, str] = {}
) -> subprocess.Popen[bytes]:
    """Start a training, with `variables` added to the environment; its output goes to `folder`/`log`."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | loggers(folder) | dict(variables)
    with (folder / log).open("wb") as output:
        return subprocess.Popen(arguments, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each whole line of the log, in the order in which they were written."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line)["data"] for line in path.read_text().splitlines() if line.endswith("}")]


def read_rollouts(folder: Path, step: int) -> list[dict[str, Any]]:
    """The rows of one step, as verl dumps them."""
    return [json.loads(line) for line in (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
