"""Which attention a recipe gets, and what the preflight says of it."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.errors import UserError
from relay_verl.models import attention
from relay_verl.preflight import attention_checks as preflight
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.registry import MACHINE, WARMUP
from relay_verl.versions import is_installed

KEY = "override_config.attn_implementation"
CHOICE = "${relay_attention:}"


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are there, of those that matter; a test adds to it."""
    there: set[str] = set()
    for module in (attention, preflight):
        monkeypatch.setattr(module, "is_installed", there.__contains__)
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    attention.register_resolver()
    return there


def config_of(trainer: str, value: Any = CHOICE, *, packed: bool = True, device: str = "cuda", size: int = 1) -> Any:
    """What the check reads of a config of verl's GRPO trainer or its SFT trainer."""
    model = {"use_remove_padding": packed, "override_config": {} if value is None else {"attn_implementation": value}}
    if trainer == "sft":
        config = {"model": model, "engine": {"ulysses_sequence_parallel_size": size}}
    else:
        config = {"actor_rollout_ref": {"model": model, "actor": {"ulysses_sequence_parallel_size": size}}}
    return OmegaConf.create({**config, "trainer": {"device": device}})


def key_of(trainer: str) -> str:
    return f"model.{KEY}" if trainer == "sft" else f"actor_rollout_ref.model.{KEY}"


CASES = [
    # packages, value, what is found, whether it is a doubt, why
    ({"flash_attn"}, CHOICE, "flash_attention_2", False, "flash-attn where it is installed"),
    (set(), CHOICE, "sdpa", True, "torch's own elsewhere, and said"),
    (set(), "sdpa", "sdpa", False, "asked for: nothing to say"),
    (set(), "eager", "eager", False, "the same"),
    ({"flash_attn"}, "sdpa", "sdpa", False, "the same, though the package is there"),
    ({"flash_attn"}, None, "flash_attention_2", False, "verl's default"),
    ({"kernels"}, "flash_attention_2", "flash_attention_2", False, "transformers takes it from the hub"),
]


@pytest.mark.parametrize("trainer", ["grpo", "sft"])
@pytest.mark.parametrize(("there", "value", "expected", "is_doubt", "why"), CASES)
def test_what_is_found(
    trainer: str, there: set[str], value: Any, expected: str, is_doubt: bool, why: str, packages: set[str]
) -> None:
    packages |= there
    found = preflight.check_attention(config_of(trainer, value))
    assert found.startswith(f"{expected}, packed sequences"), why
    assert isinstance(found, CheckWarning) == is_doubt, why


def test_padded_sequences_on_the_cpu_pass(packages: set[str]) -> None:
    assert preflight.check_attention(config_of("grpo", packed=False, device="cpu")) == "sdpa, padded sequences"


@pytest.mark.parametrize("trainer", ["grpo", "sft"])
@pytest.mark.parametrize("value", ["flash_attention_2", None])
def test_flash_attention_without_the_package_is_refused_with_the_override(
    trainer: str, value: Any, packages: set[str]
) -> None:
    with pytest.raises(UserError) as error:
        preflight.check_attention(config_of(trainer, value))
    key, line = key_of(trainer), str(error.value)
    assert line.startswith(f"{key}=flash_attention_2: ")
    assert line.endswith(f"or set {key}=sdpa")
    assert "\n" not in line


def test_a_build_of_flash_attn_that_does_not_load_is_a_doubt(
    packages: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> Any:
        raise ImportError("undefined symbol:\n _ZN3c105ErrorC2")

    packages.add("flash_attn")
    monkeypatch.setattr(importlib, "import_module", fail)
    found = preflight.check_attention(config_of("grpo"))
    assert isinstance(found, CheckWarning)
    assert "undefined symbol: _ZN3c105ErrorC2" in found
    assert f"{key_of('grpo')}=sdpa" in found


@pytest.mark.parametrize(
    ("trainer", "size_key"),
    [
        ("grpo", "actor_rollout_ref.actor.ulysses_sequence_parallel_size"),
        ("sft", "engine.ulysses_sequence_parallel_size"),
    ],
)
def test_sequence_parallelism_needs_flash_attention_and_packed_sequences(
    trainer: str, size_key: str, packages: set[str]
) -> None:
    with pytest.raises(UserError, match=f"{size_key}=2 needs .*attn_implementation=flash_attention_2, got sdpa"):
        preflight.check_attention(config_of(trainer, size=2))
    packages.add("flash_attn")
    assert preflight.check_attention(config_of(trainer, size=2)).startswith("flash_attention_2")
    with pytest.raises(UserError, match=f"{size_key}=2 needs .*use_remove_padding=true"):
        preflight.check_attention(config_of(trainer, size=2, packed=False))


def test_both_trainers_check_it() -> None:
    for checks in (MACHINE, WARMUP):
        assert "attention" in {check.name for check in checks}


@pytest.mark.parametrize(("made", "is_there"), [("folder", False), ("package", True), (None, False)])
def test_a_folder_in_the_working_directory_is_not_an_installed_package(
    made: str | None, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B writes its runs to `wandb/`, which Python takes for a namespace package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    if made is not None:
        (tmp_path / "some_logger").mkdir()
    if made == "package":
        (tmp_path / "some_logger" / "__init__.py").touch()
    assert is_installed("some_logger") is is_there
