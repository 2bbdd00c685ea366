"""Shared by all tests: Hypothesis that is the same everywhere, vLLM's HTTP server in imitation, an installation."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hypothesis import settings
from omegaconf import OmegaConf

from tests.helpers.composing import compose_once, read_once
from tests.helpers.fake_vllm import FakeVllm
from tests.helpers.warm_python import WarmPython

settings.register_profile("relay", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("relay")


@pytest.fixture
def fake_vllm() -> Iterator[FakeVllm]:
    fake = FakeVllm()
    yield fake
    fake.stop()


@pytest.fixture(scope="session", autouse=True)
def _configs_are_composed_once() -> Iterator[None]:
    """In this process; each test has copies of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(read_once(OmegaConf.load)))
        patch.setattr(hydra, "compose", compose_once(hydra.compose))
        yield


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Processes of Python that need not import torch, transformers and Ray once more."""
    python = WarmPython()
    yield python
    python.stop()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install --no-deps --target` leaves, from a copy: pip leaves things where it builds."""
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("installation")
    source, target = folder / "source", folder / "plugin"
    for name in ("relay_verl", "recipes", "examples/tiny"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=600)
    return target
