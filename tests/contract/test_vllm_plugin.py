"""vLLM's processes on CPU sleep while they wait for each other; elsewhere they spin as vLLM has it."""

import pytest

from tests.helpers.warm_python import WarmPython

CODE = """
import resource
import time
import zmq
from vllm.plugins import load_general_plugins
load_general_plugins()
load_general_plugins()
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.utils.network_utils import get_open_zmq_ipc_path
condition = SpinCondition(is_reader=True, context=zmq.Context(), notify_address=get_open_zmq_ipc_path())
condition.record_read()
waits, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
while time.monotonic() < condition.last_read + 0.5:
    condition.wait(timeout_ms=1)
    waits += 1
num_slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before  # how often it gave its core away
print("sleeps" if num_slept >= waits / 2 else "spins", waits, num_slept)
"""


@pytest.mark.parametrize(("platform", "way"), [("cpu", "sleeps"), ("", "spins")])
def test_the_plugin_reaches_what_vllm_loads(platform: str, way: str, warm_python: WarmPython) -> None:
    done = warm_python.run("-c", CODE, env={"VERL_PLATFORM": platform})
    assert way in done.stdout.split(), done.stderr[-500:]
