"""What the commands of defer heads refuse before a model loads."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.defer.head_folder import save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import make_head
from relay_verl.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plain questions, a student and a teacher without weights, and a head."""
    write_parquet(tmp_path / "plain.parquet", [to_row(data_source="t", question="1+1?", ground_truth="2", id="a")])
    for name in ("student", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    info = HeadInfo(HeadKind.ENTROPY)
    save_head(tmp_path / "head", make_head(info), info)
    monkeypatch.setenv("RELAY_TINY_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TINY = ["--benchmark", "tiny", "--source", "tiny=plain.parquet", "--out", "out"]
NO_STUDENT = ["actor_rollout_ref.model.path=null", "relay.warmup.base_model=null"]
DATA = ["--data", "plain.parquet", "--out", "out"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["defer-data", *DATA, "--head", "head", "-q"], None),
        (["defer-data", *DATA, "--head", "head"], "plain.parquet: expected labels, in a column 'defer'"),
        (["defer-data", *DATA, "relay.teacher.path=nowhere/at/all"], "nowhere/at/all does not exist"),
        (["defer-data", *DATA, *NO_STUDENT], "actor_rollout_ref.model.path: no student is given"),
        (["defer-train", *DATA, "relay.defer_training.kind=null"], "relay.defer_training.kind: null"),
        (["defer-train", *DATA, "relay.defer_training.kind=mlp"], "relay.defer_training.kind: 'mlp'"),
        (["defer-train", *DATA, "relay.defer_training.batch_size=1"], "relay.defer_training.batch_size: 1"),
        (["defer-train", *DATA, "relay.defer_training.split=row"], "relay.defer_training.split: 'row'"),
        (["calibrate", "head", *TINY, "relay.defer_training.target_ratio=null"], "--target-ratio: expected a share"),
        (
            ["calibrate", "head", *TINY, "--target-ratio", "1.5"],
            "--target-ratio: 1.5: expected a share between 0 and 1",
        ),
        (["calibrate", "student", *TINY], "student: expected the folder of a defer head"),
    ],
)
def test_bad_input(words: list[str], message: str | None, folder: Path) -> None:
    result = CliRunner().invoke(app, [*words, "--recipe", "citer_tiny"])
    if message is None:
        assert result.exit_code == 2
        return
    assert isinstance(result.exception, UserError), result.output
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert not (folder / "out").exists()
