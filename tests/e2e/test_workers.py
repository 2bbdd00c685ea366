"""On a cluster that runs already, workers on every node see what the driver sees, and Ray shows no secret of it; a
training that joins it ends with a checkpoint when its teacher refuses every call.

The cluster is started without the variables; the driver has them and joins by `RAY_ADDRESS`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray._private.test_utils import request_with_auth_token

from tests.helpers.fake_vllm import FakeVllm
from tests.helpers.local_cluster import LocalCluster, running_cluster
from tests.helpers.training import command, read_metrics, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

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
import json, os, sys
import ray
from ray._private.test_utils import request_with_auth_token
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
    answer = request_with_auth_token("GET", dashboard + path, timeout=30)
    assert answer.ok or answer.status_code == 404, (path, answer.text)
    print(answer.text)
print(json.dumps({"same": same, "seen": seen, "session": ray._private.worker.global_worker.node.get_session_dir_path(),
                  "job": ray.get_runtime_context().get_job_id()}))
"""


@pytest.fixture(scope="module")
def cluster(pair: Path) -> Iterator[LocalCluster]:
    """Started once the pair is there: what builds it has a Ray of its own."""
    bare = {name: value for name, value in os.environ.items() if name not in {**KEYS, **PLAIN, "RELAY_TINY_DIR": ""}}
    with running_cluster(environment=bare) as started:
        yield started


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


def test_workers_on_both_nodes_have_the_drivers_variables_and_ray_shows_none(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | KEYS | PLAIN | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(
        [sys.executable, "driver.py", cluster.dashboard, *KEYS, *PLAIN],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["same"]) == 2
    assert answer["same"] == [dict.fromkeys([*KEYS, *PLAIN], True)] * 2
    assert answer["seen"] == ["of the driver"] * 2, "an interpolation has the driver's value"
    jobs = request_with_auth_token("GET", f"{cluster.dashboard}/api/jobs/", timeout=30)
    assert jobs.ok, jobs.text
    (tmp_path / "driver.py").unlink()
    logs = Path(answer["session"]) / "logs"
    assert any(logs.rglob("*.log"))
    assert "set_relay_environment" in done.stdout, "the listings do show the runtime environment"
    assert secrets_in(done.stdout + done.stderr + jobs.text, tmp_path, logs) == set()


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The teacher writes the first token of its prompt again."""
    choice = {"index": 0, "text": "1", "finish_reason": "length", "logprobs": None, "token_ids": body["prompt"][:1]}
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1, "total_tokens": 1 + len(body["prompt"])}
    return {"id": "c", "object": "text_completion", "created": 0, "model": "big", "choices": [choice], "usage": usage}


WITHDRAWN = 401, {"error": {"message": "the key was withdrawn"}}
NUM_STEPS = 12
"""More than it takes to count 20 calls that fail."""


@dataclass(frozen=True)
class Joined:
    """What a training left that joined the cluster, and whose teacher's key was withdrawn after the first step."""

    folder: Path
    code: int
    log: str
    metrics: list[dict[str, Any]]
    asked: list[dict[str, str]]
    """The headers of each request to the teacher."""


@pytest.fixture(scope="module")
def joined(cluster: LocalCluster, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Joined:
    folder = tmp_path_factory.mktemp("joined")
    teacher = FakeVllm()
    teacher.routes["/v1/completions"] = lambda body: WITHDRAWN if read_metrics(folder) else completion(body)
    words = ["relay.teacher.path=null", f"relay.teacher.base_url={teacher.url}", "relay.teacher.model=big"]
    words += [f"trainer.total_training_steps={NUM_STEPS}", "trainer.save_freq=100", "trainer.test_freq=-1"]
    variables = PLAIN | {name: value for name, value in KEYS.items() if name != "ALL_PROXY"}
    variables |= {"RELAY_TINY_DIR": str(pair), "RAY_ADDRESS": cluster.address}
    training = start(command(folder, *words), folder, "log", variables)
    try:
        code = training.wait(timeout=1200)
    finally:
        training.kill()
        teacher.stop()
    log = (folder / "log").read_text(errors="replace")
    asked = [headers for path, headers, _ in teacher.requests if path == "/v1/completions"]
    return Joined(folder, code, log, read_metrics(folder), asked)


@pytest.mark.slow
def test_a_training_that_joins_asks_its_teacher_with_the_drivers_key(joined: Joined, pair: Path) -> None:
    assert joined.metrics, joined.log[-5000:]
    assert joined.asked, "calls were made"
    assert {headers["authorization"] for headers in joined.asked} == {f"Bearer {KEYS['RELAY_TEACHER_API_KEY']}"}
    assert joined.metrics[0]["relay/teacher_failures"] == 0
    assert f"'{pair}/student_warm'" in joined.log, "verl prints the config with the driver's values"
    assert secrets_in(joined.log, joined.folder) == set()


@pytest.mark.slow
def test_a_training_whose_teacher_refuses_every_call_ends_with_a_checkpoint(joined: Joined) -> None:
    """It says why on its last line, and every step is logged and warned of once."""
    assert joined.code == 1, joined.log[-5000:]
    last = joined.log.strip().splitlines()[-1]
    assert last.startswith("relay_verl: relay.max_failed_call_share=0.5: "), last
    assert "HTTP 401: the key was withdrawn" in last
    [step] = re.findall(r"step (\d+) is saved", last)
    checkpoints = joined.folder / "checkpoints"
    assert (checkpoints / "latest_checkpointed_iteration.txt").read_text() == step
    assert (checkpoints / f"global_step_{step}" / "actor").is_dir()
    assert [line["training/global_step"] for line in joined.metrics[:-1]] == list(range(1, int(step)))
    warnings = re.findall(r"relay_verl: warning: step (\d+): \d+ of \d+ calls to the teacher failed", joined.log)
    assert str(step) in warnings
    assert len(warnings) == len(set(warnings)), "one a step"
