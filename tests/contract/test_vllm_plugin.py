"""vLLM's processes on CPU sleep while they wait for each other; elsewhere they spin as vLLM has it."""

import os
import subprocess
import sys

import pytest

CODE = """
import zmq
from vllm.plugins import load_general_plugins
load_general_plugins()
load_general_plugins()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.utils.network_utils import get_open_zmq_ipc_path
condition = SpinCondition(is_reader=True, context=zmq.Context(), notify_address=get_open_zmq_ipc_path())
print("spins for", float(condition.busy_loop_s))
"""


@pytest.mark.parametrize(("platform", "seconds"), [("cpu", 0.0), ("", 1.0)])
def test_the_plugin_reaches_what_vllm_loads(platform: str, seconds: float) -> None:
    environment = os.environ | {"VERL_PLATFORM": platform}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert f"spins for {seconds}" in done.stdout, done.stderr[-500:]
