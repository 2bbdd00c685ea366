"""vLLM's processes on CPU sleep while they wait for each other; elsewhere they spin as vLLM has it."""

import os
import subprocess
import sys

import pytest

CODE = """
import time
import zmq
from vllm.plugins import load_general_plugins
load_general_plugins()
load_general_plugins()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.utils.network_utils import get_open_zmq_ipc_path
condition = SpinCondition(is_reader=True, context=zmq.Context(), notify_address=get_open_zmq_ipc_path())
condition.record_read()
waits = 0
while time.monotonic() < condition.last_read + 0.5:
    condition.wait(timeout_ms=1)
    waits += 1
print("sleeps" if waits <= 0.5 / 0.0002 else "spins")
"""


@pytest.mark.parametrize(("platform", "way"), [("cpu", "sleeps"), ("", "spins")])
def test_the_plugin_reaches_what_vllm_loads(platform: str, way: str) -> None:
    environment = os.environ | {"VERL_PLATFORM": platform}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert way in done.stdout.split(), done.stderr[-500:]
