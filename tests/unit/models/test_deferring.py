"""Which student a head fits, and which row of its embedding is free: each misfit is one error, before a model loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.config import DeferSettings
from relay_verl.defer.engine_head import EngineHead
from relay_verl.defer.head_folder import save_head, save_info
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import make_head
from relay_verl.defer.reserved_id import find_reserved_id
from relay_verl.errors import UserError
from relay_verl.models.deferring import read_engine_head, with_head
from relay_verl.run_config import PromptSettings, RunConfig
from tests.helpers.tokenizers import make_bpe

H = 32
PROMPTS = PromptSettings({})


def student_of(folder: Path, num_rows: int, architecture: str = "Qwen3ForCausalLM") -> str:
    """A folder with a configuration alone."""
    folder.mkdir()
    config = {"model_type": "qwen3", "architectures": [architecture], "hidden_size": H, "vocab_size": num_rows}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_bpe([b"\n\n", b".\n\n"], added=("<call>", "</call>"))


@pytest.fixture
def head(tmp_path: Path) -> str:
    info = HeadInfo(HeadKind.COLLM, H, threshold=0.3)
    save_head(tmp_path / "head", make_head(info), info)
    return str(tmp_path / "head")


def test_the_last_padding_row_is_reserved(tokenizer: Any, head: str, tmp_path: Path) -> None:
    num_rows = len(tokenizer) + 3
    student = student_of(tmp_path / "student", num_rows)
    spec = read_engine_head(DeferSettings(head), student, tokenizer, PROMPTS)
    assert (spec.token_id, spec.architecture, spec.step_ends) == (num_rows - 1, "Qwen3ForCausalLM", None)
    assert spec.deferral(2).num_tokens == 2 and spec.deferral(2).threshold == 0.3
    assert json.loads(spec.arguments()[1]) == spec.overrides()
    named = DeferSettings(head, reserved_id=len(tokenizer))
    assert read_engine_head(named, student, tokenizer, PROMPTS).token_id == len(tokenizer)


def test_steps_begin_behind_their_ends(tokenizer: Any, tmp_path: Path) -> None:
    save_info(tmp_path, HeadInfo(HeadKind.FIRST_TOKEN_ENTROPY))
    student = student_of(tmp_path / "student", len(tokenizer) + 1)
    spec = read_engine_head(DeferSettings(str(tmp_path)), student, tokenizer, PROMPTS)
    assert spec.step_ends is not None
    assert {tokenizer.decode([i]) for i in spec.step_ends} == {"\n\n", ".\n\n"}
    save_info(tmp_path, HeadInfo(HeadKind.FIRST_TOKEN_ENTROPY, step_end="###"))
    with pytest.raises(UserError, match=r"step_end.*###"):
        read_engine_head(DeferSettings(str(tmp_path)), student, tokenizer, PROMPTS)


def test_misfits(tokenizer: Any, head: str, tmp_path: Path) -> None:
    student = student_of(tmp_path / "student", len(tokenizer) + 1)
    other = student_of(tmp_path / "other", len(tokenizer) + 1, "MambaForCausalLM")
    full = student_of(tmp_path / "full", len(tokenizer))
    wide = HeadInfo(HeadKind.COLLM, H + 1)
    save_head(tmp_path / "wide", make_head(wide), wide)
    used = tokenizer.encode("a", add_special_tokens=False)[0]
    cases = [
        (DeferSettings(str(tmp_path / "none")), student, "defer_head.json"),
        (DeferSettings(str(tmp_path / "wide")), student, f"hidden_size: {H + 1}"),
        (DeferSettings(head), other, "MambaForCausalLM.*Qwen3ForCausalLM"),
        (DeferSettings(head), full, f"all {len(tokenizer)} rows"),
        (DeferSettings(head, reserved_id=used), student, f"reserved_id: {used}.*'a'"),
        (DeferSettings(head, reserved_id=10**6), student, "reserved_id: 1000000"),
        (DeferSettings(head), "http://127.0.0.1:1/v1", "does not run here"),
    ]
    for settings, model, message in cases:
        with pytest.raises(UserError, match=message):
            read_engine_head(settings, model, tokenizer, PROMPTS)


def test_a_special_token_without_text_where_no_row_is_free() -> None:
    from transformers import AddedToken

    tokenizer = make_bpe([])
    spare = AddedToken("<|reserved_special_token_7|>", special=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [spare]})
    tokenizer.add_tokens(["plain"])
    token_id = tokenizer.convert_tokens_to_ids("<|reserved_special_token_7|>")
    assert find_reserved_id(tokenizer, len(tokenizer), frozenset()) == token_id
    with pytest.raises(UserError, match="all"):
        find_reserved_id(tokenizer, len(tokenizer), frozenset({token_id}))


def test_what_an_engine_cannot_have_with_a_head() -> None:
    spec = EngineHead("/head", "Qwen3ForCausalLM", 5, HeadInfo(HeadKind.ENTROPY))
    base = {"engine_kwargs": {"vllm": {"max_num_seqs": 3}}}

    def run_with(**rollout: Any) -> RunConfig:
        return RunConfig(OmegaConf.create({"actor_rollout_ref": {"rollout": {**base, **rollout}}}))

    kwargs = with_head(run_with(), spec).verl.actor_rollout_ref.rollout.engine_kwargs.vllm
    assert kwargs.max_num_seqs == 3 and json.loads(kwargs.hf_overrides) == spec.overrides()
    for rollout, key in (
        ({"quantization": "fp8"}, "quantization"),
        ({"engine_kwargs": {"vllm": {"speculative_config": {"method": "ngram"}}}}, "speculative_config"),
        ({"engine_kwargs": {"vllm": {"hf_overrides": {"a": 1}}}}, "hf_overrides"),
    ):
        with pytest.raises(UserError, match=key):
            with_head(run_with(**rollout), spec)
