"""On a cluster that runs already, workers on every node see what the driver sees, and Ray shows no secret of it.

The cluster is started without the variables; the driver has them and joins by `RAY_ADDRESS`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.local_cluster import ROOT
from tests.helpers.training import command, loggers, read_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

KEYS = {
    "RELAY_TEACHER_API_KEY": "planted-teacher-Zq81",
    "RELAY_STUDENT_API_KEY": "planted-student-Zq82",
    "RELAY_JUDGE_API_KEY": "planted-judge-Zq83",
    "HF_TOKEN": "planted-hub-Zq84",
    "WANDB_API_KEY": "planted-wandb-Zq85",
    "ALL_PROXY": "http://someone:planted-proxy-Zq86@127.0.0.1:9",
}
PLANTED = [value.split("@")[0].rsplit("-", 1)[1] for value in KEYS.values()]
PLAIN = {"RELAY_ANYTHING": "of the driver", "HF_HUB_OFFLINE": "1", "VERL_PLATFORM": "cpu", "NO_PROXY": "127.0.0.1"}

DRIVER = """
import json, os, sys, urllib.request
import ray
from ray.util import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig, resolve
from relay_verl.models.ray_session import start_ray

dashboard, *names = sys.argv[1:]
config = compose("relay_tiny", ["data.custom_cls.name=${oc.env:RELAY_ANYTHING}"])
start_ray(RunConfig(config))
resolve(config)

@ray.remote(num_cpus=1)
class Worker:
    def same(self, values):
        import os
        return {name: os.environ.get(name) == value for name, value in values.items()}

    def value(self, config):
        return config.data.custom_cls.name

values = {name: os.environ[name] for name in names}
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
workers = [Worker.options(scheduling_strategy=strategy).remote() for strategy in strategies]
same = ray.get([worker.same.remote(values) for worker in workers])
seen = ray.get([worker.value.remote(config) for worker in workers])
os.environ.pop("ALL_PROXY", None)  # the listings are asked for without it
for listing in (state.list_actors, state.list_jobs, state.list_workers, state.list_tasks, state.list_runtime_envs):
    print(listing(detail=True, limit=1000))
for path in ("/api/jobs/", "/api/v0/runtime_envs?detail=1", "/api/v0/actors?detail=1", "/logical/actors"):
    try:
        print(urllib.request.urlopen(dashboard + path, timeout=30).read().decode())
    except OSError as error:
        print(path, error)
print(json.dumps({"same": same, "seen": seen, "session": ray._private.worker.global_worker.node.get_session_dir_path(),
                  "job": ray.get_runtime_context().get_job_id()}))
"""


@dataclass(frozen=True)
class Cluster:
    """Two nodes on this machine."""

    address: str
    dashboard: str


@pytest.fixture(scope="module")
def cluster(pair: Path) -> Iterator[Cluster]:
    """Started once the pair is there: what builds it has a Ray of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = str(ROOT / "examples" / "cluster" / "local_cluster.py")
    bare = {name: value for name, value in os.environ.items() if name not in {**KEYS, **PLAIN, "RELAY_TINY_DIR": ""}}
    with subprocess.Popen(
        [sys.executable, script, "--dashboard-port", port], env=bare, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = next(json.loads(line) for line in process.stdout if line.startswith("{"))
        yield Cluster(said["ray"], said["address"])
        process.send_signal(signal.SIGTERM)


def secrets_in(text: str, *folders: Path) -> set[str]:
    """The planted secrets in a text and in all files of the folders."""
    found = {secret for secret in PLANTED if secret in text}
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        found |= {f"{secret} in {file}" for secret in PLANTED if secret.encode() in content}
    return found


def test_workers_on_both_nodes_have_the_drivers_variables_and_ray_shows_none(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | KEYS | PLAIN | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(
        [sys.executable, "driver.py", cluster.dashboard, *KEYS, *PLAIN],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["same"]) == 2
    assert answer["same"] == [dict.fromkeys([*KEYS, *PLAIN], True)] * 2
    assert answer["seen"] == ["of the driver"] * 2, "an interpolation has the driver's value"
    jobs = urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=30).read().decode()
    (tmp_path / "driver.py").unlink()
    logs = Path(answer["session"]) / "logs"
    assert any(logs.rglob("*.log"))
    assert "set_relay_environment" in done.stdout, "the listings do show the runtime environment"
    assert secrets_in(done.stdout + done.stderr + jobs, tmp_path, logs) == set()


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The teacher writes the first token of its prompt again."""
    choice = {"index": 0, "text": "1", "finish_reason": "length", "logprobs": None, "token_ids": body["prompt"][:1]}
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1, "total_tokens": 1 + len(body["prompt"])}
    return {"id": "c", "object": "text_completion", "created": 0, "model": "big", "choices": [choice], "usage": usage}


def test_a_training_that_joins_asks_its_teacher_with_the_drivers_key(
    cluster: Cluster, pair: Path, fake_vllm: Any, tmp_path: Path
) -> None:
    fake_vllm.routes["/v1/completions"] = completion
    run = tmp_path / "run"
    words = ["trainer.total_training_steps=1", "relay.teacher.path=null", f"relay.teacher.base_url={fake_vllm.url}"]
    environment = os.environ | loggers(run) | PLAIN | {"RELAY_TINY_DIR": str(pair), "RAY_ADDRESS": cluster.address}
    environment |= {name: value for name, value in KEYS.items() if name != "ALL_PROXY"}
    done = subprocess.run(command(run, *words), env=environment, cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    asked = [headers for path, headers, _ in fake_vllm.requests if path == "/v1/completions"]
    assert asked, "calls were made"
    assert {headers["authorization"] for headers in asked} == {f"Bearer {KEYS['RELAY_TEACHER_API_KEY']}"}
    (metrics,) = [step for step in read_metrics(run) if "relay/accuracy" in step]
    assert metrics["relay/teacher_failures"] == 0
    assert f"'{pair}/student_warm'" in said, "verl prints the config with the driver's values"
    assert secrets_in(said, tmp_path) == set()
