"""Folders of any name under the parts of others that read them: verl's dataset, and vLLM's search for weights."""

import glob
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.config import TeacherSettings
from relay_verl.data.schema import to_row, write_parquet
from relay_verl.errors import UserError
from relay_verl.models.address import check_folder_name, check_model_path
from relay_verl.models.launch import start_teacher
from relay_verl.run_config import RunConfig
from tests.helpers.tokenizers import BPE_WORDS, make_bpe
from tests.unit.recipes.test_grammar import NAMES

ROWS = [to_row(data_source="test", question=f"{i}?", ground_truth="7", id=f"q{i}", index=i) for i in range(3)]


def dataset(path: Path) -> Any:
    from relay_verl.trainer.datasets import TeacherSolvableDataset

    data = {"min_pass_rate": 0.0, "cache_dir": str(path.parent), "filter_overlong_prompts": False}
    return TeacherSolvableDataset(str(path), make_bpe(BPE_WORDS), OmegaConf.create(data))


@pytest.mark.parametrize("name", [*NAMES, "a*", "b?", "[!x]"])
def test_training_reads_its_data_in_any_folder(name: str, tmp_path: Path) -> None:
    write_parquet(tmp_path / name / "train.parquet", ROWS)
    write_parquet(tmp_path / "bX" / "train.parquet", ROWS)  # what a pattern would take as well
    found = dataset(tmp_path / name / "train.parquet")
    assert len(found) == len(ROWS)
    found.resume_dataset_state()
    assert len(found) == len(ROWS)


def test_a_name_that_datasets_takes_for_an_archive_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a::b" / "train.parquet", ROWS)
    with pytest.raises(UserError, match=r"a::b/train\.parquet: '::' in a path"):
        dataset(tmp_path / "a::b" / "train.parquet")


@pytest.mark.parametrize("name", ["relay [2]", "a*", "b?"])
def test_a_folder_in_which_vllm_finds_no_weights_is_named(name: str, tmp_path: Path) -> None:
    model = tmp_path / name
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("")
    (tmp_path / "bX").mkdir()
    (tmp_path / "bX" / "model.safetensors").write_text("")
    taken = glob.glob(str(model / "*.safetensors"))  # as vLLM looks for them
    assert taken != [str(model / "model.safetensors")] or name == "a*"
    for check in (check_folder_name, check_model_path):
        with pytest.raises(UserError) as error:
            check("relay.teacher.path", str(model))
        assert str(error.value).startswith(f"relay.teacher.path: {model}: vLLM reads ")
    link = tmp_path / "link"
    link.symlink_to(model)
    check_folder_name("relay.teacher.path", str(link))
    check_folder_name("relay.teacher.base_url", "http://[::1]:8000/v1")


async def test_every_command_that_starts_a_model_says_so_before(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"relay \[2\]: vLLM reads "):
        await start_teacher(RunConfig(OmegaConf.create({})), TeacherSettings(path=str(tmp_path / "relay [2]")), None)
