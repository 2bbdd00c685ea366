"""On real vLLM engines: without calls the relay loop is verl's single turn; an endpoint is as good as a replica."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def found(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("equivalence") / "found.json"
    script = Path(__file__).with_name("both_loops.py")
    subprocess.run([sys.executable, str(script), str(pair), str(out)], check=True, timeout=800)
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def decode(pair: Path) -> Callable[[list[int]], str]:
    return AutoTokenizer.from_pretrained(pair / "student_warm").decode


@pytest.mark.parametrize("kind", ["", " seeded", " banned"])
def test_without_calls_the_relay_loop_is_verls_single_turn(found: dict[str, Any], kind: str) -> None:
    for single, relay in zip(found[f"single{kind}"], found[f"relay{kind}"], strict=True):
        assert relay["response_ids"]
        assert relay["prompt_ids"] == single["prompt_ids"]
        assert relay["response_ids"] == single["response_ids"]
        assert relay["response_mask"] == single["response_mask"]
        assert relay["response_logprobs"] == pytest.approx(single["response_logprobs"], abs=1e-4)


def test_the_warmed_up_student_writes_commands_when_sampled_and_none_when_banned(
    found: dict[str, Any], decode: Callable[[list[int]], str]
) -> None:
    sampled = "".join(decode(output["response_ids"]) for output in found["relay seeded"])
    assert "<call>" in sampled
    banned = "".join(decode(output["response_ids"]) for output in found["relay banned"])
    assert "<call>" not in banned
    assert "</call>" not in banned


def test_an_endpoint_answers_as_the_replica_does(found: dict[str, Any]) -> None:
    assert found["by http"]["token_ids"] == found["by a replica"]["token_ids"]
    assert found["by http"]["finish_reason"] == found["by a replica"]["finish_reason"]


def test_an_endpoint_tells_why_it_stopped(
    found: dict[str, Any], pair: Path, decode: Callable[[list[int]], str]
) -> None:
    eos = AutoTokenizer.from_pretrained(pair / "student_warm").eos_token_id
    assert found["eos by http"]["finish_reason"] == "eos"
    assert found["eos by http"]["token_ids"][-1] == eos
    stopped = found["stop by http"]
    assert stopped["finish_reason"] == "stop"
    assert "=" in decode(stopped["token_ids"][-1:])
    assert len(stopped["logprobs"]) == len(stopped["token_ids"])


def test_an_endpoints_tokenizer_can_be_compared(found: dict[str, Any]) -> None:
    theirs, ours = found["tokens by http"]
    assert theirs == ours
