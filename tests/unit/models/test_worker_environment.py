"""What a driver sends to its workers, and that a worker gets it before any code of the run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from ray import cloudpickle
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from relay_verl.errors import UserError
from relay_verl.models.worker_environment import carried_variables, carry, key_variables, make_hook
from relay_verl.recipes.compose import compose
from relay_verl.run_config import RunConfig, check_references, resolve

SENT = {
    "RELAY_TINY_DIR": "/pair",
    "RELAY_TEACHER_API_KEY": "key-of-the-teacher",
    "HF_TOKEN": "hub-token",
    "HF_HOME": "/hub",
    "HUGGING_FACE_HUB_TOKEN": "older-name",
    "https_proxy": "http://me:secret@proxy:1",
    "NO_PROXY": "localhost",
    "VERL_PLATFORM": "cpu",
    "WANDB_API_KEY": "wandb-key",
    "TENSORBOARD_DIR": "/boards",
    "SSL_CERT_FILE": "/etc/own.pem",
}
KEPT = {
    "PATH": "/bin",
    "HOME": "/root",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "NCCL_SOCKET_IFNAME": "eth0",
    "VLLM_HOST_IP": "10.0.0.1",
    "MY_KEY": "a key that no one asks for",
}


def test_what_recipes_engines_hub_and_loggers_read_is_sent() -> None:
    assert carried_variables(SENT | KEPT) == SENT


def test_the_key_that_a_recipe_names_is_sent() -> None:
    words = ["relay.teacher.path=null", "relay.teacher.base_url=http://h/v1", "relay.teacher.api_key_env=MY_KEY"]
    names = key_variables(RunConfig(compose("relay_tiny", words)).relay)
    assert names == {"MY_KEY"}
    assert carried_variables(KEPT, names) == {"MY_KEY": KEPT["MY_KEY"]}


def test_what_the_runtime_environment_sets_wins_and_its_secrets_are_not_shown() -> None:
    given = {"env_vars": {"VERL_PLATFORM": "npu", "HF_TOKEN": "typed-token", "NCCL_DEBUG": "WARN"}, "working_dir": None}
    sent = carry(given, SENT | KEPT)
    assert sent["env_vars"] == {"VERL_PLATFORM": "npu", "NCCL_DEBUG": "WARN"}
    assert sent["working_dir"] is None
    assert "token" not in repr({**sent, "worker_process_setup_hook": None})
    seen = run_hook(sent["worker_process_setup_hook"], {"VERL_PLATFORM": "npu"})
    assert seen["HF_TOKEN"] == "typed-token"
    assert seen["VERL_PLATFORM"] == "npu"
    assert {name: seen[name] for name in SENT.keys() - {"VERL_PLATFORM", "HF_TOKEN"}} == {
        name: value for name, value in SENT.items() if name not in ("VERL_PLATFORM", "HF_TOKEN")
    }


@given(
    st.dictionaries(st.sampled_from(sorted(SENT | KEPT)), st.text(max_size=8)), st.sets(st.sampled_from(sorted(SENT)))
)
def test_sent_is_a_part_of_the_environment(environment: dict[str, str], without: set[str]) -> None:
    sent = carried_variables(environment, without=without)
    assert sent.items() <= environment.items()
    assert not sent.keys() & without
    assert sent.keys() >= (environment.keys() & SENT.keys()) - without


def run_hook(hook: Any, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a process without relay_verl after Ray's steps: unpickle the hook and call it."""
    code = (
        "import sys, os, json, pickle\n"
        "sys.modules['relay_verl'] = None\n"
        "pickle.load(sys.stdin.buffer)()\n"
        "print(json.dumps(dict(os.environ)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=cloudpickle.dumps(hook),
        capture_output=True,
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    result: dict[str, str] = json.loads(done.stdout)
    return result


def test_a_hook_of_the_users_own_runs_after(tmp_path: Path) -> None:
    (tmp_path / "own_hook.py").write_text("import os\ndef go(): os.environ['SAW'] = os.environ['HF_HOME']\n")
    hook = make_hook({"HF_HOME": "/hub"}, "own_hook.go")
    assert run_hook(hook, {"PYTHONPATH": str(tmp_path)})["SAW"] == "/hub"

    def own() -> None:
        import os

        os.environ["SAW"] = os.environ["HF_HOME"] + "!"

    assert run_hook(make_hook({"HF_HOME": "/hub"}, own), {})["SAW"] == "/hub!"
    submitted = {RAY_JOB_CONFIG_JSON_ENV_VAR: '{"runtime_env": {"worker_process_setup_hook": "own_hook.go"}}'}
    sent = carry({}, submitted | {"HF_HOME": "/hub"})
    assert run_hook(sent["worker_process_setup_hook"], {"PYTHONPATH": str(tmp_path)})["SAW"] == "/hub"


# ---- interpolations ----


def test_references_are_resolved_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TINY_DIR", "/of the driver")
    config = compose("relay_tiny")
    resolve(config)
    monkeypatch.setenv("RELAY_TINY_DIR", "/of a worker")
    assert config.actor_rollout_ref.model.path == "/of the driver/student_warm"
    assert config.relay.teacher.path == "/of the driver/teacher"
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    assert not any(OmegaConf.is_interpolation(variables, name) for name in variables)
    assert "${" not in OmegaConf.to_yaml(config, resolve=False)


@pytest.mark.parametrize("check", [resolve, check_references])
def test_a_reference_without_a_value_is_a_line(check: Any) -> None:
    config = compose("relay_tiny", ["data.train_files=${oc.env:NOT_SET_ANYWHERE}/x"])
    before = OmegaConf.to_yaml(config)
    with pytest.raises(UserError, match=r"^data\.train_files: .*NOT_SET_ANYWHERE") as error:
        check(config)
    assert "\n" not in str(error.value)
    if check is check_references:
        assert OmegaConf.to_yaml(config) == before, "a check changes nothing"
