"""An export on a hub: one commit with all of it, read again by its id there, and one sentence for what goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_verl.checkpoints.push import HubRepository
from relay_verl.checkpoints.relay_file import RELAY_FILE, RelayFile, RelayLimits, read_relay_file, write_relay_file
from tests.helpers.errors import one_line
from tests.helpers.hub import Hub, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported student."""
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# student\n")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "config.json").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "secret").write_text("not for the hub")
    write_relay_file(folder, RelayFile(limits=RelayLimits(max_calls=2)))
    return folder


def test_all_of_it_is_there_in_one_commit(hub: Hub, folder: Path) -> None:
    repository = HubRepository("me/student", is_private=True)
    repository.check()
    assert repository.upload(folder, "step 5") == f"{hub.url}/me/student"
    names = {"README.md", "model.safetensors", "config.json", RELAY_FILE}
    assert hub.files["me/student"] == {name: (folder / name).read_bytes() for name in names}
    assert hub.private == {"me/student": True}
    assert hub.commits == ["step 5"]


def test_again_sends_only_what_is_new(hub: Hub, folder: Path) -> None:
    repository = HubRepository("lab/student")
    repository.upload(folder, "one")
    hub.asked.clear()
    repository.upload(folder, "two")
    assert hub.commits == ["one"], "nothing is new"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# student\n")
    repository.upload(folder, "three")
    assert hub.commits == ["one", "three"]
    assert not [line for line in hub.asked if line.startswith("PUT")], "the weights were there"
    assert hub.files["lab/student"]["README.md"] == (folder / "README.md").read_bytes()


def test_what_was_pushed_is_read_by_its_id(hub: Hub, folder: Path) -> None:
    HubRepository("me/student").upload(folder, "one")
    assert read_relay_file("me/student").limits.max_calls == 2
    assert read_relay_file("me/other") == RelayFile()


@pytest.mark.parametrize("name", ["student", "me/student/x", "me/a b", "me/..", "http://127.0.0.1/me/x", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(hub: Hub, name: str) -> None:
    assert one_line(HubRepository(name).check).startswith(f"--push: {name!r}")
    assert not hub.asked


def test_another_owner_is_refused(hub: Hub) -> None:
    line = one_line(HubRepository("they/student").check)
    assert all(part in line for part in ("they/student", "me, lab"))


def test_a_wrong_token_is_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = one_line(HubRepository("me/student").check)
    assert "401" in line and "HF_TOKEN" in line and "hf_wrong" not in line


def test_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "HF_TOKEN" in one_line(HubRepository("me/student").check)
    assert not hub.asked


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in one_line(HubRepository("me/student").check)


@pytest.mark.parametrize(
    ("part", "status"), [("/create", 403), ("/validate-yaml", 400), ("/preupload/", 404), ("/commit/", 413)]
)
def test_what_the_hub_refuses_is_said(hub: Hub, folder: Path, part: str, status: int) -> None:
    hub.refuse[part] = (status, "not like this")
    line = one_line(HubRepository("me/student").upload, folder, "one")
    assert line.startswith(f"--push: me/student: {hub.url}") and "not like this" in line
    assert not hub.files.get("me/student")


def test_no_hub(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    line = one_line(HubRepository("me/student").check)
    assert line.startswith(f"--push: me/student: {hub.url}")


def test_a_folder_without_a_card_is_not_uploaded(hub: Hub, tmp_path: Path) -> None:
    assert "README.md" in one_line(HubRepository("me/student").upload, tmp_path, "one")
    assert not hub.asked
