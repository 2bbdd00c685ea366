"""The socket of the weights: verl's trainer and engine agree on it, two clusters of one machine do not share it, and a
trainer does not wait for ever.
"""

import json
from pathlib import Path

from tests.helpers.warm_python import WarmPython

HANDLES = """
import json, sys
from types import SimpleNamespace
from unittest.mock import MagicMock
import ray
import verl.trainer.main_ppo  # with the plugin
from verl.workers.rollout.vllm_rollout import vllm_async_server, vllm_rollout
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

sizes = {f"{name}_parallel_size": 1 for name in ("tensor_model", "data", "pipeline_model")}
config = MagicMock(**sizes, disaggregation=None, full_determinism=False, profiler=None)


class Server(vllm_async_server.vLLMHttpServer):
    _init_config = _init_model_config = lambda self, config: config
    _validate_configs = lambda self: None


def handles(address):
    context = SimpleNamespace(get_job_id=lambda: "01000000", gcs_address=address)
    ray.get_runtime_context = lambda: context
    sender = vllm_rollout.ServerAdapter(config, MagicMock(lora_rank=0), None, replica_rank=3)
    Server(config, config, None, [], 3, 0, 1, 1, "")
    receiver = vLLMColocateWorkerExtension._get_zmq_handle(SimpleNamespace(local_rank=0, model_runner=None))
    return sender.zmq_handle, receiver


print(json.dumps([handles("192.0.2.2:6379"), handles("192.0.2.2:6380")]))
"""


def test_a_cluster_has_a_socket_of_its_own(warm_python: WarmPython) -> None:
    variables = {"VERL_PLATFORM": "cpu", "RANK": "0", "RAY_LOCAL_WORLD_SIZE": "1"}
    done = warm_python.run("-c", HANDLES, env=variables)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = json.loads(done.stdout.split("\n")[-2])
    assert first[0] == first[1] and second[0] == second[1], "the trainer's weights reach their engine"
    assert first[0] != second[0], "and no other cluster's"
    assert first[0].startswith("ipc:///tmp/") and len(first[0]) < 100, "a Unix socket's path has 107 bytes"


NO_ENGINE = """
import asyncio, sys, time
import torch
import verl.trainer.main_ppo  # with the plugin
from relay_verl.trainer import weight_socket
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

weight_socket.DEADLINE_S = 0.5
sender = BucketedWeightSender(f"ipc://{sys.argv[1]}", bucket_size_mb=1, use_shm=True)
started = time.monotonic()
try:
    asyncio.run(sender.async_send_weights([("weight", torch.zeros(3))]))
except TimeoutError as error:
    print(error, round(time.monotonic() - started))
"""


def test_a_trainer_whose_engine_has_died_ends(warm_python: WarmPython, tmp_path: Path) -> None:
    """It hung in silence: a socket without a reader takes nothing and says nothing."""
    done = warm_python.run("-c", NO_ENGINE, str(tmp_path / "socket"), env={"VERL_PLATFORM": "cpu"})
    assert "the student's engine took no weights for 0.5 s" in done.stdout, done.stderr[-2000:]
    assert not (tmp_path / "socket").exists()
