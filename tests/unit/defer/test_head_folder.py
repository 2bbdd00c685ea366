"""A head's folder: what is written is what is read, and what is wrong has one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.defer.head_folder import INFO_FILE, WEIGHTS_FILE, load_head, read_info, save_head
from relay_verl.defer.head_info import Calibration, HeadInfo, HeadKind
from relay_verl.defer.heads import EntropyHead, make_head
from relay_verl.errors import UserError

H = 8


def info_of(kind: HeadKind) -> HeadInfo:
    return HeadInfo(
        kind, H if kind.has_weights else None, threshold=0.7, calibration=Calibration(0.01, 0.02, (0.0, 0.1))
    )


@pytest.mark.parametrize("kind", HeadKind)
def test_round_trip(kind: HeadKind, tmp_path: Path) -> None:
    info = info_of(kind)
    head = make_head(info)
    save_head(tmp_path / "head", head, info)
    loaded, read = load_head(tmp_path / "head", hidden_size=H)
    assert read == info
    hidden, logits = torch.randn(5, H), torch.randn(5, 11)
    scores = loaded(hidden, logits)
    assert torch.equal(scores, head.eval()(hidden, logits))
    assert scores.shape == (5,) and scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (tmp_path / "head" / WEIGHTS_FILE).exists() is kind.has_weights


def test_citer_is_the_released_mlp() -> None:
    shapes = [tuple(p.shape) for p in make_head(info_of(HeadKind.CITER)).parameters()]
    assert shapes == [(2 * H, H), (2 * H,), (2 * H,), (2 * H,), (H, 2 * H), (H,), (1, H), (1,)]


@given(st.integers(1, 300), st.integers(2, 400))
def test_entropy_of_equally_likely_tokens(num_likely: int, vocab_size: int) -> None:
    num_likely = min(num_likely, vocab_size)
    logits = torch.full((1, vocab_size), -torch.inf)
    logits[:, :num_likely] = 1.5
    assert EntropyHead()(torch.zeros(1, H), logits).item() == pytest.approx(1 / num_likely, rel=1e-4)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=INFO_FILE):
        read_info(tmp_path)
    info = info_of(HeadKind.CITER)
    save_head(tmp_path, make_head(info), info)
    with pytest.raises(UserError, match=f"hidden_size: {H}.*{H + 1}"):
        read_info(tmp_path, hidden_size=H + 1)
    values = json.loads((tmp_path / INFO_FILE).read_text())
    for key, value in {"threshold": 2.5, "kind": "mlp", "format": 2, "colour": 1, "hidden_size": None}.items():
        (tmp_path / INFO_FILE).write_text(json.dumps({**values, key: value}))
        with pytest.raises(UserError, match=key):
            read_info(tmp_path)
    (tmp_path / INFO_FILE).write_text(json.dumps({**values, "hidden_size": H + 1}))
    with pytest.raises(UserError, match=WEIGHTS_FILE):
        load_head(tmp_path)
    (tmp_path / INFO_FILE).write_text(json.dumps(values))
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(UserError, match=WEIGHTS_FILE):
        read_info(tmp_path)


def test_a_new_head_replaces_weights(tmp_path: Path) -> None:
    info = info_of(HeadKind.CITER)
    save_head(tmp_path, make_head(info), info)
    entropy = replace(info_of(HeadKind.ENTROPY), threshold=0.5)
    save_head(tmp_path, make_head(entropy), entropy)
    assert load_head(tmp_path)[1] == entropy
    assert not (tmp_path / WEIGHTS_FILE).exists()


@pytest.mark.parametrize("kind", HeadKind)
def test_for_inference_it_is_the_same_function(kind: HeadKind) -> None:
    torch.manual_seed(1)
    head = make_head(info_of(kind))
    hidden, logits = torch.randn(50, H), torch.randn(50, 11)
    head.train()(hidden, logits)  # which moves the running statistics of a normalisation
    scores = head.eval()(hidden, logits)
    assert torch.allclose(head.for_inference()(hidden, logits), scores, atol=1e-6)
