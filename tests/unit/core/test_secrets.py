"""No secret in what a run shows: keys are planted in the environment, on the command line and in URLs, and every file,
log and error of a run is searched for them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict

from relay_verl.checkpoints.card import card
from relay_verl.checkpoints.record import read_checkpoint, record_of, write_checkpoint, write_run
from relay_verl.checkpoints.resume import runs_folder
from relay_verl.checkpoints.trained_student import TrainedStudent
from relay_verl.cli import main as cli
from relay_verl.config import read_settings
from relay_verl.errors import JobError, UserError
from relay_verl.evaluation.suite import Condition
from relay_verl.jobs.formats import JsonLines
from relay_verl.jobs.store import JobStore
from relay_verl.models.worker_environment import carry
from relay_verl.preflight import training as preflight
from relay_verl.recipes.compose import compose
from relay_verl.secrets import HIDDEN, hide, hide_in_text, hide_override, holds_secret, is_secret_name, secrets_in
from relay_verl.trainer import ending
from tests.helpers.checkpoints import make_config, save_checkpoint

IN_ENVIRONMENT = {
    "RELAY_TEACHER_API_KEY": "planted-teacher-Zq81",
    "RELAY_STUDENT_API_KEY": "planted-student-Zq82",
    "RELAY_JUDGE_API_KEY": "planted-judge-Zq83",
    "HF_TOKEN": "planted-hub-Zq84",
    "WANDB_API_KEY": "planted-wandb-Zq85",
    "https_proxy": "http://someone:planted-proxy-Zq86@proxy.invalid:3128",
}
TYPED = [
    "+ray_kwargs.ray_init.runtime_env.env_vars.MY_API_KEY=planted-variable-Zq87",
    "+ray_kwargs.ray_init._redis_password=planted-redis-Zq88",
    "+ray_kwargs.ray_init.runtime_env.env_vars={OTHER_TOKEN:planted-group-Zq89}",
    "+trainer.tracking=http://someone:planted-url-Zq90@tracking.invalid/x",
    '+trainer.mirrors=["http://someone:planted-list-Zq91@mirror.invalid/x?api_key=planted-query-Zq92"]',
]
PLANTED = [f"Zq{number}" for number in range(81, 93)]


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def found_in(folder: Path, *texts: str) -> list[str]:
    """The planted secrets that stand in the names or the contents of the files, or in the texts."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    whole = "\n".join([*texts, *map(str, files), *(file.read_bytes().decode(errors="replace") for file in files)])
    return [secret for secret in PLANTED if secret in whole]


APP = """
import hydra
from omegaconf import OmegaConf
from relay_verl.trainer import hydra_files
from relay_verl.checkpoints.record import name_the_launch, record_of, write_run
from relay_verl.secrets import hide

@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config):
    hydra_files.hide_secrets(config)
    name_the_launch(config)
    write_run(".", record_of(config))
    config.ray_kwargs = hide("ray_kwargs", OmegaConf.to_container(config.ray_kwargs))
    print(config.trainer.launched_as, config.ray_kwargs)

main()
"""


def test_a_hydra_app_leaves_none_of_them(tmp_path: Path) -> None:
    """What a training leaves before and while Ray starts, in a real Hydra app: Hydra's files, the run's record, the
    parts of the config that verl prints."""
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "app.py", "+recipe=relay_tiny", *TYPED], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = {file.name for file in tmp_path.rglob("*.yaml")}
    assert files >= {"config.yaml", "overrides.yaml", "hydra.yaml"}, "Hydra wrote what is searched"
    (tmp_path / "app.py").unlink()
    assert found_in(tmp_path, done.stdout, done.stderr) == []
    assert HIDDEN in (next(tmp_path.rglob("overrides.yaml"))).read_text()
    assert json.loads((tmp_path / "relay_run.json").read_text())["overrides"]


def test_records_cards_and_manifests_hold_none(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    with open_dict(config):
        config.mirrors = ["http://someone:planted-list-Zq91@mirror.invalid/x?api_key=planted-query-Zq92"]
        config.deep = {"HF_TOKEN": IN_ENVIRONMENT["HF_TOKEN"], "url": IN_ENVIRONMENT["https_proxy"]}
        config.relay.teachers = [{"base_url": "http://h/v1", "secret": "planted-variable-Zq87"}]
    folder = save_checkpoint(config, 5)
    run = record_of(config)
    write_run(runs_folder(config), run)
    write_checkpoint(folder, run, 5, {})
    (tmp_path / "README.md").write_text(card(TrainedStudent(read_checkpoint(folder), "student", "float32")))
    spec = {"teacher": "http://h/v1", "key": hide_in_text(f"401: {IN_ENVIRONMENT['RELAY_TEACHER_API_KEY']}")}
    with JobStore(tmp_path / "out.jsonl", spec, JsonLines()):
        assert found_in(tmp_path) == []
    assert run.config["mirrors"] == [f"http://{HIDDEN}@mirror.invalid/x?api_key={HIDDEN}"]
    assert run.config["deep.HF_TOKEN"] == HIDDEN


def test_rays_runtime_environment_shows_none() -> None:
    sent = carry({"env_vars": {"MY_API_KEY": "planted-variable-Zq87", "NCCL_DEBUG": "WARN"}}, os.environ)
    hook = sent.pop("worker_process_setup_hook")
    assert not [secret for secret in PLANTED if secret in repr(sent) + repr(hook) + hook.__name__]


@pytest.mark.parametrize("key", sorted(IN_ENVIRONMENT))
def test_a_last_line_quotes_no_key(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers quote what they are sent; whoever ends a program with a line passes it through here."""
    said = f"401 Incorrect API key provided: {IN_ENVIRONMENT[key]}"

    def fails(*_: Any, **__: Any) -> None:
        raise JobError(said)

    monkeypatch.setattr(cli, "app", fails)
    lines = []
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines.append(str(end.value.code))

    def refuses(_: Any) -> None:
        raise UserError(said)

    from types import SimpleNamespace

    module = SimpleNamespace(validate_config=lambda config: None)
    preflight.install_check(module, "validate_config", refuses)
    with pytest.raises(SystemExit) as end:
        module.validate_config(None)
    lines.append(str(end.value.code))
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(run_ppo=lambda: refuses(None)))
    ending.install(dict(os.environ), ends_ray=False)
    with pytest.raises(SystemExit) as end:
        sys.modules["__main__"].run_ppo()  # type: ignore[attr-defined]
    lines.append(str(end.value.code))
    assert len(lines) == 3
    for line in lines:
        assert "401 Incorrect API key provided: " in line
        assert not [secret for secret in PLANTED if secret in line]


# ---- keys where they do not belong ----


@pytest.mark.parametrize(
    "teacher",
    [
        {"base_url": "http://someone:planted-url-Zq90@h/v1"},
        {"base_url": "http://h/v1?api_key=planted-query-Zq92"},
        {"base_url": "http://h/v1", "api_key_env": "planted-teacher-Zq81"},
        {"base_url": "http://h/v1", "api_key": "planted-teacher-Zq81"},
        {"base_url": "http://h/v1", "timeout_s": "http://someone:planted-url-Zq90@h"},
    ],
)
def test_a_recipe_with_a_key_in_it_is_refused_without_showing_it(teacher: dict[str, str]) -> None:
    for node in ({"teacher": teacher}, {"teachers": [teacher]}):
        with pytest.raises(UserError) as error:
            read_settings(node)
        line = str(error.value)
        assert line.startswith("relay.teacher")
        assert not [secret for secret in PLANTED if secret in line]


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_eval_refuses_an_address_with_a_key(role: str, tmp_path: Path) -> None:
    models = {"student": "http://h/v1", "teacher": "http://h/v1", role: "http://me:planted-url-Zq90@h/v1"}
    with pytest.raises(UserError, match=f"^--{role}: .*RELAY_{role.upper()}_API_KEY") as error:
        Condition("c", tmp_path, models["student"], models["teacher"])
    assert "Zq90" not in str(error.value)


def test_an_override_that_cannot_be_read_is_shown_without_its_key() -> None:
    for word in ("+env.HF_TOKEN=planted (hub) Zq84", "a.url=http://me:planted-Zq90@h (copy)"):
        with pytest.raises(UserError) as error:
            compose("relay_tiny", [word])
        assert not [secret for secret in PLANTED if secret in str(error.value)]


# ---- the rule ----


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("OPENAI_API_KEY", True),
        ("relay.teacher.apikey", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("HUGGING_FACE_HUB_TOKEN", True),
        ("_redis_password", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("relay.teacher.api_key_env", False),
        ("data.prompt_key", False),
        ("relay.max_tokens_per_call", False),
        ("actor.ppo_max_token_len_per_gpu", False),
    ],
)
def test_secret_names(name: str, is_secret: bool) -> None:
    assert is_secret_name(name) == is_secret


@pytest.mark.parametrize(
    ("url", "does"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("https://h/accounts/@me/v1", False),
        ("http://me@h/v1", True),
        ("http://me:a/b@h/v1", False),  # a slash ends the host: this is another path, and no password
        ("me:key@h/v1", True),
        ("http://h/v1?sig=1", True),
    ],
)
def test_urls_with_a_secret(url: str, does: bool) -> None:
    assert holds_secret(url) == does


SECRETS = st.text(st.characters(categories=["L", "N"]), min_size=6, max_size=20)


@given(SECRETS, st.text(max_size=20), st.text(max_size=20))
def test_a_known_value_is_nowhere_in_a_text(secret: str, before: str, after: str) -> None:
    if secret not in before + after + HIDDEN:
        assert secret not in hide_in_text(f"{before} {secret} {after}", [secret])


@given(st.dictionaries(st.sampled_from(["api_key", "HF_TOKEN", "plain"]), SECRETS, min_size=1))
def test_secrets_of_a_config_are_found_at_any_depth(leaves: dict[str, str]) -> None:
    config = OmegaConf.create({"a": [{"b": leaves}]})
    wanted = {value for name, value in leaves.items() if name != "plain"}
    assert secrets_in(config) == wanted
    shown = json.dumps(hide("a", OmegaConf.to_container(config)["a"]), ensure_ascii=False)  # type: ignore[index,call-overload]
    for name, value in leaves.items():
        assert name == "plain" or value not in shown or value in HIDDEN or value == leaves.get("plain")


def test_a_reference_is_not_a_secret() -> None:
    assert secrets_in(OmegaConf.create({"api_key": "${oc.env:KEY}"})) == set()
    assert hide_override("a.api_key=x") == f"a.api_key={HIDDEN}"
    assert hide_override("a.api_key_env=NAME") == "a.api_key_env=NAME"
