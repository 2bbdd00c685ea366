"""Our warnings are heard, and once, whatever other packages do to the root logger."""

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import asyncio, logging, runpy
import relay_verl.plugin  # as verl imports it in the driver and in every worker
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import ScriptedEngine
from relay_verl.errors import EngineError

{root}

TOKENIZER = runpy.run_path('tests/helpers/tokenizers.py')['ByteTokenizer']()
student = ScriptedEngine(TOKENIZER, lambda _: "a<call>3</call>")
teacher = ScriptedEngine(TOKENIZER, lambda _: EngineError("HTTP 401: the key was withdrawn"))
decoder = RelayDecoder(student, teacher, TOKENIZER, RelayConfig(60, None, 5))
for _ in range(2):
    assert asyncio.run(decoder.run([1])).num_failed_calls
"""
VLLM = "from model_hosting_container_standards.logging_config import configure_root_logger; configure_root_logger()"
ROOTS = [
    # what happens to the root logger, why
    ("", "it has no handler"),
    ("logging.basicConfig(level=logging.WARNING)", "verl's own handler takes the warning"),
    (f"logging.basicConfig(level=logging.WARNING); {VLLM}", "a worker that has imported vLLM's server"),
]


@pytest.mark.parametrize(("root", "why"), ROOTS, ids=[why for _, why in ROOTS])
def test_the_first_failed_call_of_a_worker_is_on_its_standard_error_once(root: str, why: str) -> None:
    command = [sys.executable, "-c", WORKER.format(root=root)]
    repository = Path(__file__).parents[3]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("HTTP 401: the key was withdrawn") == 1, ended.stderr
