"""verl's own trainer as a submitted job on two nodes, of which the teacher's dies: deterministic, on CPU."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.local_cluster import ROOT, LocalCluster, local_cluster
from tests.helpers.training import command, loggers, read_metrics, start

SAVE_FREQ = 2
NUM_COMPARED = 4
"""Steps before the teacher's node is killed; other runs do the same ones."""
NUM_STEPS = 6
DETERMINISTIC = ["+relay=deterministic", f"trainer.save_freq={SAVE_FREQ}", "trainer.max_actor_ckpt_to_keep=null"]
ON_TWO_NODES = [
    *DETERMINISTIC,
    "relay.teacher.node_resource=teacher",
    "transfer_queue.backend.SimpleStorage.required_node_resource=trainer",
    "relay.on_teacher_failure=continue",
    "relay.max_failed_call_share=1",  # this run is to continue without its teacher
    "relay.teacher.timeout_s=10",
    "relay.teacher.num_retries=0",
    "relay.teacher.breaker_threshold=3",
    "relay.teacher.breaker_reset_s=600",
    f"trainer.total_training_steps={NUM_STEPS}",
    f"trainer.test_freq={NUM_STEPS}",
    "data.val_max_samples=24",
    "data.validation_shuffle=false",
]


def read_log(folder: Path, name: str) -> str:
    return (folder / name).read_text(errors="replace")[-5000:]


@dataclass(frozen=True)
class Job:
    """What the cluster's run left."""

    folder: Path
    metrics: list[dict[str, Any]]
    actors: dict[str, list[str]]
    """Classes by node, 'trainer' or 'teacher'."""
    without_plugin: subprocess.CompletedProcess[str]
    """The run of a driver that has the plugin on workers that have not."""


def train_on_two_nodes(pair: Path, installation: Path, folders: pytest.TempPathFactory) -> Job:
    """A submitted job that carries the plugin; after the steps to compare all of the teacher's node is killed."""
    folder = folders.mktemp("job")
    with local_cluster(folders.mktemp("bare")) as cluster:
        elsewhere = folders.mktemp("without")
        without_plugin = subprocess.run(
            command(elsewhere, *ON_TWO_NODES),
            env=os.environ | {"RAY_ADDRESS": cluster.address},
            capture_output=True,
            text=True,
            timeout=600,
            cwd=elsewhere,
        )
        submitted = submit(cluster, folder, installation, pair)
        try:
            wait_for_steps(submitted, folder, 1, "log")
            actors = cluster.actors_by_node()
            wait_for_steps(submitted, folder, NUM_COMPARED, "log")
            cluster.kill_node("teacher")
            code = submitted.wait(timeout=1200)
        finally:
            submitted.kill()
        assert code == 0, read_log(folder, "log")
    by_name = {name: actors[node_id] for name, node_id in cluster.nodes.items()}
    return Job(folder, read_metrics(folder), by_name, without_plugin)


def submit(cluster: LocalCluster, folder: Path, installation: Path, pair: Path) -> subprocess.Popen[bytes]:
    """Submit the training as the README of the example does."""
    names = yaml.safe_load((ROOT / "examples" / "cluster" / "runtime_env.yaml").read_text())["py_modules"]
    carried = [installation / Path(name).name for name in names]
    assert all(module.is_dir() for module in carried)
    variables = {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(pair), "HF_HUB_OFFLINE": "1", **loggers(folder)}
    runtime_env = {"py_modules": [str(module) for module in carried], "env_vars": variables}
    ray_job = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard]
    ray_job += ["--runtime-env-json", json.dumps(runtime_env), "--"]
    return start([*ray_job, *command(folder, *ON_TWO_NODES, python=cluster.python)], folder, "log")


def wait_for_steps(process: subprocess.Popen[bytes], folder: Path, num_steps: int, log: str) -> None:
    """Until so many lines of metrics are there; fails if the process ends before."""
    while len(read_metrics(folder)) < num_steps and process.poll() is None:
        time.sleep(0.1)
    assert process.poll() is None, read_log(folder, log)
