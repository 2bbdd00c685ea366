"""A model by its address, and what tells one from another."""

from pathlib import Path

from relay_verl.config import TeacherSettings
from relay_verl.models.address import model_at, model_sha256


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_model_is_its_files(tmp_path: Path) -> None:
    one, copy = write_model(tmp_path / "one"), write_model(tmp_path / "copy")
    (copy / "README.md").write_text("notes do not matter")
    assert model_sha256(str(one)) == model_sha256(str(copy)) is not None
    assert model_sha256(str(write_model(tmp_path / "other", b"others"))) != model_sha256(str(one))
    (copy / "tokenizer.json").write_text("{}")
    assert model_sha256(str(copy)) != model_sha256(str(one)), "another tokenizer is another model"


def test_what_is_not_here_has_no_hash() -> None:
    assert model_sha256("Qwen/Qwen3-8B") is None
    assert model_sha256("http://127.0.0.1:8000/v1") is None


def test_a_model_by_its_address() -> None:
    settings = TeacherSettings(path="x", base_url=None, num_replicas=3)
    endpoint = model_at("https://host/v1", settings, model="big")
    assert (endpoint.path, endpoint.base_url, endpoint.model) == (None, "https://host/v1", "big")
    here = model_at("/models/student", settings)
    assert (here.path, here.base_url, here.model, here.num_replicas) == ("/models/student", None, None, 3)
