"""A Ray cluster of two nodes on this machine: a submitted job that carries the plugin, and a node that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from .training_for_tests import NUM_ROWS, command, loggers, read_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
NUM_STEPS = 16
KILL_AFTER = 3
OVERRIDES = [
    "relay.teacher.node_resource=teacher",
    "transfer_queue.backend.SimpleStorage.required_node_resource=trainer",
    "relay.on_teacher_failure=continue",
    "relay.teacher.timeout_s=10",
    "relay.teacher.num_retries=0",
    "relay.teacher.breaker_threshold=3",
    "relay.teacher.breaker_reset_s=600",
    f"trainer.total_training_steps={NUM_STEPS}",
]


@dataclass(frozen=True)
class LocalCluster:
    """What `examples/cluster/local_cluster.py` printed."""

    process: psutil.Process
    dashboard: str
    address: str
    nodes: dict[str, str]
    python: str

    def raylet(self, resource: str) -> psutil.Process:
        """The node that has this resource."""
        family = self.process.children(recursive=True)
        (found,) = [p for p in family if p.name() == "raylet" and f"{resource},1" in " ".join(p.cmdline())]
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two raylets of a Python that has verl, vLLM and Ray, but not this plugin."""
    bare = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    packages = bare / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "base.pth").write_text(sysconfig.get_path("purelib"))  # what its own .pth files add stays out
    python = str(bare / "bin" / "python")
    assert subprocess.run([python, "-c", "import relay_verl"], capture_output=True, cwd=bare).returncode != 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen(
        [python, str(ROOT / "examples" / "cluster" / "local_cluster.py"), "--dashboard-port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=bare,
    )
    assert started.stdout is not None
    try:
        said = next(json.loads(line) for line in started.stdout if line.startswith("{"))
        process = psutil.Process(started.pid)
        yield LocalCluster(process, said["address"], said["ray"], said["nodes"], python)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=60)


@pytest.fixture(scope="module")
def plugin(installation: Path) -> list[str]:
    """What the runtime environment of the example carries."""
    names = yaml.safe_load((ROOT / "examples" / "cluster" / "runtime_env.yaml").read_text())["py_modules"]
    folders = [installation / Path(name).name for name in names]
    assert all(folder.is_dir() for folder in folders)
    return [str(folder) for folder in folders]


def test_a_cluster_without_the_plugin_is_one_line(cluster: LocalCluster, pair: Path, tmp_path: Path) -> None:
    """The driver has it, the workers do not; nothing is trained."""
    done = subprocess.run(
        command(tmp_path, *OVERRIDES),
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("relay_verl: Ray node "), done.stderr[-3000:]
    assert "plugin" in last
    assert not read_metrics(tmp_path)


@pytest.fixture(scope="module")
def run(
    cluster: LocalCluster, plugin: list[str], pair: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """A submitted job; after some steps all processes of the teacher's node are killed."""
    folder = tmp_path_factory.mktemp("job")
    variables = {"VERL_PLATFORM": "cpu", "RELAY_TINY_DIR": str(pair), "HF_HUB_OFFLINE": "1", **loggers(folder)}
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.dashboard]
    submit += ["--runtime-env-json", json.dumps({"py_modules": plugin, "env_vars": variables}), "--"]
    submit += command(folder, *OVERRIDES, python=cluster.python)
    log = folder / "job.log"
    with log.open("wb") as output:
        job = subprocess.Popen(submit, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
    try:
        while len(read_metrics(folder)) < KILL_AFTER and job.poll() is None:
            time.sleep(0.2)
        assert job.poll() is None, log.read_text(errors="replace")[-5000:]
        actors = actors_by_node(cluster.address)
        raylet = cluster.raylet("teacher")
        for process in [*raylet.children(recursive=True), raylet]:
            process.kill()
        code = job.wait(timeout=500)
    finally:
        job.kill()
    assert code == 0, log.read_text(errors="replace")[-5000:]
    return {"metrics": read_metrics(folder), "actors": actors, "folder": folder}


def actors_by_node(address: str) -> dict[str, list[str]]:
    """Classes of the actors that are alive, by the node they run on."""
    code = (
        "import json, ray; from ray.util.state import list_actors; ray.init(address='auto', log_to_driver=False)\n"
        "alive = [(actor.node_id, actor.class_name) for actor in list_actors(limit=500) if actor.state == 'ALIVE']\n"
        "print(json.dumps({node: [name for at, name in alive if at == node] for node, _ in alive}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_students_and_teachers_groups_are_on_different_nodes(cluster: LocalCluster, run: dict) -> None:
    trainers, teachers = (run["actors"][cluster.nodes[name]] for name in ("trainer", "teacher"))
    assert any("WorkerDict" in name for name in trainers), "the actor's group"
    assert not any("WorkerDict" in name for name in teachers)
    assert trainers.count("CpuVLLMHttpServer") == teachers.count("CpuVLLMHttpServer") == 1
    assert "CheckpointEngineWorker" in teachers, "the replica's own group"
    for name in ("TaskRunnerV1", "SimpleStorageUnit", "TransferQueueController", "AgentLoopWorkerTQ"):
        assert any(name in there for there in trainers), "what the training cannot do without"


def test_before_the_node_died_calls_were_served(run: dict) -> None:
    for metrics in run["metrics"][: KILL_AFTER - 1]:
        assert metrics["relay/teacher_failures"] == 0
    assert run["metrics"][0]["relay/calls/served"] > 0


def test_the_training_goes_on_without_its_teacher(run: dict) -> None:
    """Every step is done, no row is lost, and the failures are in the metrics."""
    assert [m["training/global_step"] for m in run["metrics"]] == list(range(1, NUM_STEPS + 1))
    assert sum(m["relay/teacher_failures"] for m in run["metrics"]) > 0
    last = run["metrics"][-1]
    assert last["relay/calls/served"] == 0
    assert last["relay/call_ratio"] == 0
    assert all(m["relay/status/completed"] == NUM_ROWS for m in run["metrics"])
