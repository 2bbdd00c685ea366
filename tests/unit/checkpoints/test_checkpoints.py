"""At which checkpoint a run resumes: whole ones, damaged ones, other runs'; and what is recorded and removed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

from relay_verl.checkpoints import space
from relay_verl.checkpoints.changes import MAY_CHANGE, find_changes
from relay_verl.checkpoints.integrity import find_damage
from relay_verl.checkpoints.record import CHECKPOINT_FILE, read_checkpoint, read_run, record_of
from relay_verl.checkpoints.resume import check_every_byte, check_resume, runs_folder
from relay_verl.config.defaults import default_config
from relay_verl.errors import UserError
from relay_verl.run_config import RunConfig
from relay_verl.trainer import ending, saving
from tests.helpers.checkpoints import make_config, save_checkpoint
from tests.helpers.errors import names, one_line

POINTER = "latest_checkpointed_iteration.txt"


@pytest.fixture
def config(tmp_path: Path) -> Any:
    return make_config(tmp_path)


def refusal(config: Any) -> str:
    with pytest.raises(UserError) as error:
        check_resume(config)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- whole or not ----


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path, step: int) -> None:
    """Change one bit of a weight that `save_checkpoint` wrote."""
    data = bytearray(file.read_bytes())
    place = data.index(
        (torch.arange(64.0) + step).numpy().tobytes()[8:16]
    )  # in the tensor, not in the archive's structure
    data[place] ^= 1
    file.write_bytes(data)


MODEL, OPTIM = "actor/model_world_size_1_rank_0.pt", "actor/optim_world_size_1_rank_0.pt"
DAMAGES = [
    # file, what happens to it, whether it shows without a record
    (MODEL, truncate, True),
    (OPTIM, truncate, True),
    ("actor/extra_state_world_size_1_rank_0.pt", truncate, True),
    ("data.pt", truncate, True),
    ("actor/fsdp_config.json", truncate, True),
    ("actor/huggingface/config.json", truncate, True),
    (MODEL, Path.unlink, True),
    ("actor/fsdp_config.json", Path.unlink, True),
    ("data.pt", Path.unlink, True),
    (OPTIM, Path.unlink, False),  # a checkpoint may be without one
    (MODEL, lambda file: file.write_bytes(b""), True),
]


@pytest.mark.parametrize("with_record", [True, False], ids=["record", "no record"])
@pytest.mark.parametrize(("name", "hurt", "always_shows"), DAMAGES)
def test_damage_names_the_file(
    config: Any, name: str, hurt: Callable[[Path], Any], always_shows: bool, with_record: bool
) -> None:
    folder = save_checkpoint(config, 0, with_record=with_record)
    assert find_damage(folder) == ""
    hurt(folder / name)
    damage = find_damage(folder)
    assert damage.startswith(str(folder / name)) if with_record or always_shows else damage == ""


@pytest.mark.parametrize("with_record", [True, False], ids=["record", "no record"])
def test_a_byte_that_changed_shows_in_a_deep_check_alone(config: Any, with_record: bool) -> None:
    first, last = (save_checkpoint(config, step, with_record=with_record) for step in (5, 10))
    assert find_damage(last, deep=True) == ""
    check_resume(config)
    assert check_every_byte(config) == str(last)
    flip(last / MODEL, 10)
    assert find_damage(last) == ""
    check_resume(config)
    assert config.trainer.resume_mode == "auto", "the start reads no weights"
    with pytest.raises(UserError) as error:
        check_every_byte(config)
    assert str(error.value).startswith(f"{last / MODEL} is damaged in ")
    assert str(error.value).endswith(f"trainer.resume_from_path={first} resumes there on purpose")
    flip(first / MODEL, 5)
    with pytest.raises(UserError, match="no checkpoint before it is whole"):
        check_every_byte(config)


@pytest.mark.parametrize("deep", [True, False])
def test_a_truncated_checkpoint_shows_in_every_check(config: Any, deep: bool) -> None:
    folder = save_checkpoint(config, 5, with_record=False)
    truncate(folder / MODEL)
    assert find_damage(folder, deep=deep) == f"{folder / MODEL} is truncated or damaged"


def test_a_deep_check_of_what_was_chosen(config: Any) -> None:
    assert check_every_byte(config) == "no checkpoint to resume at"
    folders = [save_checkpoint(config, step) for step in (5, 10)]
    truncate(folders[1] / OPTIM)
    check_resume(config)
    assert check_every_byte(config) == str(folders[0]), "the one before"
    config.trainer.resume_mode = "disable"
    assert check_every_byte(config) == "no checkpoint to resume at"


def test_the_hashes_of_the_driver_are_the_records(config: Any) -> None:
    """The trainer does not read the training files again."""
    hashes = record_of(config).train_files
    assert hashes != [None]
    config.trainer.launched_as.train_files = hashes
    os.unlink(config.data.train_files)
    assert record_of(config).train_files == hashes


def test_a_rank_whose_file_is_missing(config: Any) -> None:
    folder = save_checkpoint(config, 5, with_record=False)
    for file in (folder / "actor").glob("*.pt"):
        file.rename(file.with_name(file.name.replace("world_size_1", "world_size_2")))
    assert "world_size_2_rank_1.pt is missing" in find_damage(folder)


@pytest.mark.parametrize("cut", [1, 100], ids=["one byte", "header"])
def test_safetensors_say_how_long_they_are(config: Any, cut: int) -> None:
    from safetensors.torch import save_file

    folder = save_checkpoint(config, 5, with_record=False)
    file = folder / "actor" / "huggingface" / "model.safetensors"
    save_file({"w": torch.zeros(4)}, file)
    assert find_damage(folder) == ""
    os.truncate(file, file.stat().st_size - cut if cut == 1 else 20)
    assert find_damage(folder).startswith(str(file))


def test_a_damaged_record_is_damage(config: Any) -> None:
    folder = save_checkpoint(config, 5)
    (folder / CHECKPOINT_FILE).write_text('{"run": 1}')
    assert find_damage(folder) == f"{folder / CHECKPOINT_FILE} is not a record of ours"


# ---- which one ----


def test_the_same_command_resumes_at_the_last_checkpoint(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check_resume(config)  # nothing there
    save_checkpoint(config, 5)
    save_checkpoint(config, 10)
    before = OmegaConf.to_yaml(config)
    check_resume(config)
    assert OmegaConf.to_yaml(config) == before, "verl's own choice"
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_is_passed_over_with_one_line(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = save_checkpoint(config, 5)
    other = save_checkpoint(config, 10)
    last = save_checkpoint(config, 15)
    truncate(last / MODEL)
    (other / OPTIM).unlink()
    check_resume(config)
    assert (config.trainer.resume_mode, config.trainer.resume_from_path) == ("resume_path", str(wanted))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"relay_verl: {last / MODEL} has ")
    assert str(wanted) in line


def test_a_save_that_was_killed_leaves_the_one_before(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(config, 5)
    partial = save_checkpoint(config, 10, with_record=False, point=False)
    (partial / "data.pt").unlink()
    check_resume(config)
    assert config.trainer.resume_mode == "auto", "verl's pointer names the whole one"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"-3", b"1_0", "\u0665".encode()])
def test_a_pointer_that_is_no_step(config: Any, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(config, 5)
    wanted = save_checkpoint(config, 10)
    pointer = wanted.parent / POINTER
    pointer.write_bytes(content)
    check_resume(config)
    assert config.trainer.resume_from_path == str(wanted)
    assert capsys.readouterr().err.startswith(f"relay_verl: {pointer} holds ")


def test_a_pointer_to_nothing(config: Any) -> None:
    wanted = save_checkpoint(config, 5)
    (wanted.parent / POINTER).write_text("10")
    check_resume(config)
    assert config.trainer.resume_from_path == str(wanted)


def test_a_pointer_that_is_gone(config: Any) -> None:
    wanted = save_checkpoint(config, 5)
    (wanted.parent / POINTER).unlink()
    check_resume(config)
    assert config.trainer.resume_from_path == str(wanted)


def test_killed_in_the_first_save(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_checkpoint(config, 5, with_record=False, point=False)
    (folder / "data.pt").unlink()
    check_resume(config)
    assert config.trainer.resume_mode == "auto"
    assert "starts at the beginning" in capsys.readouterr().err


def test_none_whole_is_one_line_unless_it_is_to_start_again(config: Any) -> None:
    folder = save_checkpoint(config, 5)
    truncate(folder / MODEL)
    line = refusal(config)
    assert line.startswith(str(folder / MODEL))
    assert "trainer.resume_mode=disable" in line
    config.trainer.resume_mode = "disable"
    check_resume(config)


def test_what_verl_leaves_of_a_removed_checkpoint_is_no_checkpoint(config: Any) -> None:
    first = save_checkpoint(config, 5)
    shutil.rmtree(first / "actor")
    truncate(save_checkpoint(config, 10) / MODEL)
    assert "has no other whole checkpoint" in refusal(config)


def test_a_relative_folder_is_where_the_command_was_given(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = save_checkpoint(config, 5)
    truncate(save_checkpoint(config, 10) / MODEL)
    monkeypatch.chdir(wanted.parents[1])
    config.trainer.default_local_dir = "checkpoints"
    check_resume(config)
    assert config.trainer.resume_from_path == str(wanted)


def test_an_unknown_way_to_resume(config: Any) -> None:
    config.trainer.resume_mode = "always"
    assert refusal(config) == "trainer.resume_mode=always: allowed: auto, resume_path, disable"


# ---- of this run or not ----

CHANGES = [
    # key, value, whether it may change
    ("trainer.save_freq", 1, True),
    ("trainer.experiment_name", "two", True),
    ("trainer.total_training_steps", 200, True),
    ("trainer.max_actor_ckpt_to_keep", 5, True),
    ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu", 2, True),
    ("relay.teacher.num_replicas", 2, True),
    ("ray_kwargs.ray_init.num_cpus", 3, True),
    ("data.seed", 2, False),  # another order
    ("data.shuffle", False, False),
    ("data.train_batch_size", 16, False),
    ("actor_rollout_ref.actor.optim.lr", 1e-5, False),
    ("actor_rollout_ref.rollout.n", 4, False),
    ("relay.max_calls", 1, False),
    ("relay.unheard_of", 1, False),  # what is not listed may not
    ("trainer.n_gpus_per_node", 2, False),  # verl reads a file a GPU
]


@pytest.mark.parametrize(("key", "value", "may_change"), CHANGES, ids=[key for key, *_ in CHANGES])
def test_what_may_change(config: Any, key: str, value: Any, may_change: bool) -> None:
    folder = save_checkpoint(config, 5)
    then = OmegaConf.select(config, key)
    OmegaConf.update(config, key, value, force_add=True)
    if may_change:
        check_resume(config)
        return
    line = refusal(config)
    assert key in line
    assert str(folder) in line
    assert str(then) in line
    assert str(value) in line
    assert f"trainer.resume_from_path={folder}" in line


def test_more_steps_change_a_schedule_that_depends_on_them(config: Any) -> None:
    config.actor_rollout_ref.actor.optim.lr_scheduler_type = "cosine"
    save_checkpoint(config, 5)
    config.trainer.total_training_steps = 200
    assert refusal(config).startswith("trainer.total_training_steps=200")


def test_a_checkpoint_of_another_recipe_is_called_that(config: Any) -> None:
    folder = save_checkpoint(config, 5)
    config.trainer.launched_as.recipe = "relay_1.7b_fixed_20"
    check_resume(config)  # another name for the same
    config.relay.reward.kind = "difficulty_aware"
    assert names(refusal(config), "", folder, "relay_1.7b_fixed_20", "relay.reward.kind", "simple")


LATER_KEYS = [
    # keys that an earlier version did not have, a value of today that is not the default
    ("relay.teacher.engine", "tests.helpers.extension:PipeEngine"),
    ("relay.teacher.top_k", 20),
    ("relay.teachers", [{"path": "t"}]),
    ("relay.max_failed_calls", 2),
    ("relay.fixed_command", "delivered"),
]


@pytest.mark.parametrize(("key", "value"), LATER_KEYS, ids=[key for key, _ in LATER_KEYS])
def test_a_key_that_the_record_lacks_had_its_default(config: Any, key: str, value: Any) -> None:
    """An earlier version wrote the record."""
    OmegaConf.update(config, "relay", default_config()["relay"], merge=False)
    config.relay.teacher.path = str(Path(config.trainer.default_local_dir).parent / "teacher")
    folder = save_checkpoint(config, 5)
    record = json.loads((folder / CHECKPOINT_FILE).read_text())
    del record["run"]["config"][key]
    (folder / CHECKPOINT_FILE).write_text(json.dumps(record))
    check_resume(config)
    default = OmegaConf.to_container(config)["relay"]
    OmegaConf.update(config, key, value, merge=False)
    with pytest.raises(UserError) as error:
        check_resume(config)
    for name in key.split(".")[1:]:
        default = default[name]
    assert names(str(error.value), f"{key}=", folder, default)


def test_a_key_that_this_version_lacks_is_called_that(config: Any) -> None:
    folder = save_checkpoint(config, 5)
    record = json.loads((folder / CHECKPOINT_FILE).read_text())
    record["run"]["config"]["relay.gone"] = 7
    (folder / CHECKPOINT_FILE).write_text(json.dumps(record))
    assert names(one_line(check_resume, config), "relay.gone: ", folder, 7, "no such key")


def test_on_purpose_a_difference_is_a_line_and_no_refusal(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_checkpoint(config, 5)
    OmegaConf.update(config, "data.seed", 2)
    config.trainer.resume_mode, config.trainer.resume_from_path = "resume_path", str(folder)
    check_resume(config)
    said = capsys.readouterr().err
    assert names(said, "relay_verl: data.seed=2", folder, 1)
    assert said.count("\n") == 1
    truncate(folder / MODEL)
    assert refusal(config).startswith(f"trainer.resume_from_path: {folder / MODEL}")


@pytest.mark.parametrize("path", [None, "/no/such/global_step_3", "/tmp"])
def test_a_path_that_is_no_checkpoint(config: Any, path: str | None) -> None:
    config.trainer.resume_mode, config.trainer.resume_from_path = "resume_path", path
    assert refusal(config).startswith("trainer.resume_from_path")


def test_a_checkpoint_of_plain_verl_is_a_line(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(config, 5, with_record=False)
    OmegaConf.update(config, "data.seed", 2)
    check_resume(config)
    assert "does not say which recipe wrote it" in capsys.readouterr().err


def test_a_moved_checkpoint_still_says_what_it_is(config: Any, tmp_path: Path) -> None:
    folder = save_checkpoint(config, 5)
    moved = tmp_path / "elsewhere" / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    record = read_checkpoint(moved)
    assert record is not None
    assert (record.run.recipe, record.step, record.metrics) == ("relay_1.7b", 5, {"relay/accuracy": 0.5})
    assert record.run.config["relay.max_calls"] == 3


def test_the_same_model_and_data_elsewhere(config: Any, tmp_path: Path) -> None:
    save_checkpoint(config, 5)
    for name in ("student", "teacher", "train.parquet"):
        (tmp_path / name).rename(tmp_path / f"moved_{name}")
    config.actor_rollout_ref.model.path = str(tmp_path / "moved_student")
    config.relay.teacher.path = str(tmp_path / "moved_teacher")
    config.data.train_files = [str(tmp_path / "moved_train.parquet")]
    check_resume(config)


def test_another_model_at_the_same_place(config: Any, tmp_path: Path) -> None:
    save_checkpoint(config, 5)
    (tmp_path / "teacher" / "config.json").write_text("{}")
    assert refusal(config).startswith("relay.teacher.path (its files)")


def test_other_data_at_the_same_place(config: Any, tmp_path: Path) -> None:
    save_checkpoint(config, 5)
    pq.write_table(pa.table({"prompt": ["1+1"]}), tmp_path / "train.parquet")
    assert refusal(config).startswith("data.train_files (their contents)")


def test_no_pattern_of_what_may_change_covers_what_decides_on_the_weights() -> None:
    one = make_config_record({})
    for key in (
        "data.seed",
        "relay.policy",
        "relay.reward.kind",
        "algorithm.adv_estimator",
        "relay.teacher.temperature",
    ):
        assert [change[0] for change in find_changes(one, make_config_record({key: "x"}))] == [key]
    assert all(MAY_CHANGE.values())


def make_config_record(config: dict[str, Any]) -> Any:
    from relay_verl.checkpoints.record import RunRecord

    return RunRecord(recipe=None, overrides=[], config=config, models={}, train_files=[])


# ---- what is recorded and removed ----


def test_a_record_holds_no_secret(config: Any) -> None:
    OmegaConf.update(config, "ray_kwargs.env_vars.WANDB_API_KEY", "hush", force_add=True)
    OmegaConf.update(config, "relay.teacher.base_url", "https://me:hush@host/v1", force_add=True)
    config.trainer.launched_as.overrides = ["+trainer.hf_token=hush", "relay.teacher.base_url=http://me:hush@host"]
    folder = save_checkpoint(config, 5)
    assert "hush" not in (folder / CHECKPOINT_FILE).read_text()
    assert "host/v1" in (folder / CHECKPOINT_FILE).read_text()
    assert "hush" not in (folder.parent / "relay_run.json").read_text()
    check_resume(config)


def callback(config: Any) -> Any:
    from relay_verl.checkpoints.callback import RecordCheckpoint

    return RecordCheckpoint(config)


def save_through(hook: Any, config: Any, step: int, *, async_save: bool = False) -> Path:
    folder = save_checkpoint(config, step, with_record=False)
    trainer = SimpleNamespace(replay_buffer=SimpleNamespace(last_metrics={"relay/accuracy": 0.25}))
    hook.on_save(trainer=trainer, global_step=step, checkpoint_dir=str(folder), async_save=async_save)
    return folder


def test_the_callback_records_the_run_and_each_checkpoint(config: Any) -> None:
    hook = callback(config)
    run = read_run(Path(config.trainer.default_local_dir))
    assert run == record_of(config)
    folder = save_through(hook, config, 5)
    record = read_checkpoint(folder)
    assert record is not None
    assert record.run == run
    assert record.metrics == {"relay/accuracy": 0.25}
    assert record.files[MODEL] == (folder / MODEL).stat().st_size
    assert save_through(hook, config, 10, async_save=True).joinpath(CHECKPOINT_FILE).exists() is False


def test_too_many_go_also_those_of_the_session_before(config: Any) -> None:
    first = [save_through(callback(config), config, step) for step in (1, 2)]
    shutil.rmtree(first[0] / "actor")  # as verl leaves it
    hook = callback(config)
    foreign = save_checkpoint(config, 3, with_record=False)
    folders = [save_through(hook, config, step) for step in (4, 5)]
    assert not first[0].exists()
    assert not first[1].exists()
    assert foreign.exists(), "who wrote it is not known"
    assert all(folder.exists() for folder in folders)


def test_checkpoints_of_another_run_in_the_same_folder_are_left(config: Any) -> None:
    other = OmegaConf.merge(config, {"data": {"seed": 9}})
    other_steps = [save_checkpoint(other, step) for step in (1, 50)]
    hook = callback(config)
    for step in (2, 3, 4):
        save_through(hook, config, step)
    assert all(folder.exists() for folder in other_steps)
    assert not (other_steps[0].parent / "global_step_2").exists()


class Trainer:
    """As much of verl's trainer as the wrapping sees."""

    def __init__(self, config: Any, step: int, error: Exception | None = None):
        self.config, self.global_steps, self.error = config, step, error

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        (folder / "actor").mkdir(parents=True)
        (folder / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"half")
        if self.error:
            raise self.error


@pytest.fixture
def module() -> Any:
    class PPOTrainer(Trainer):
        pass

    wrapped = SimpleNamespace(PPOTrainer=PPOTrainer)
    saving.install(wrapped)
    once = wrapped.PPOTrainer._save_checkpoint
    saving.install(wrapped)
    assert wrapped.PPOTrainer._save_checkpoint is once, "a second call does nothing"
    return wrapped


def test_a_save_is_not_mixed_with_what_a_killed_one_left(config: Any, module: Any) -> None:
    stale = save_checkpoint(config, 5) / "actor" / "model_world_size_8_rank_7.pt"
    stale.write_bytes(b"stale")
    module.PPOTrainer(config, 5)._save_checkpoint()
    folder = Path(config.trainer.default_local_dir)
    assert [file.name for file in (folder / "global_step_5" / "actor").iterdir()] == ["model_world_size_1_rank_0.pt"]
    assert (folder / "global_step_5.old-1" / "actor" / stale.name).exists(), "nothing is thrown away"
    module.PPOTrainer(config, 5)._save_checkpoint()
    assert (folder / "global_step_5.old-2").exists()


ERRORS = [
    OSError(28, "No space left on device"),
    RuntimeError(
        "traceback\n  of a worker\nRuntimeError: [enforce fail] PytorchStreamWriter failed writing file data/3"
    ),
]


@pytest.mark.parametrize("error", ERRORS, ids=["OSError", "torch"])
def test_a_save_that_fails_is_one_line(config: Any, module: Any, error: Exception) -> None:
    save_checkpoint(config, 5)
    with pytest.raises(saving.SaveError) as raised:
        module.PPOTrainer(config, 10, error)._save_checkpoint()
    line = str(raised.value)
    folder = Path(config.trainer.default_local_dir) / "global_step_10"
    assert line.startswith(f"{folder} could not be saved with ")
    assert "GB free" in line
    assert str(error).splitlines()[-1] in line
    assert "global_step_5" in line
    assert not folder.exists(), "half a checkpoint takes no room"
    check_resume(config)
    assert config.trainer.resume_mode == "auto"


def test_a_save_that_finds_no_room_says_how_much_it_takes(
    config: Any, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(config, 5)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(saving.SaveError, match=r"0\.0000 GB free.*0\.0000 GB"):
        module.PPOTrainer(config, 10, ERRORS[1])._save_checkpoint()


def test_a_checkpoint_whose_pointer_could_not_be_written_is_kept(config: Any) -> None:
    class PPOTrainer(Trainer):
        def _save_checkpoint(self) -> None:
            save_checkpoint(config, 10, with_record=False, point=False)
            raise ERRORS[0]

    saving.install(SimpleNamespace(PPOTrainer=PPOTrainer))
    with pytest.raises(saving.SaveError, match="global_step_10"):
        PPOTrainer(config, 10)._save_checkpoint()


def test_a_training_of_others_is_left_alone(config: Any, module: Any) -> None:
    del config["relay"]
    with pytest.raises(ZeroDivisionError):
        module.PPOTrainer(config, 10, ZeroDivisionError())._save_checkpoint()


# ---- room ----


def test_a_disk_that_is_too_small(config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    space.check_space(RunConfig(config))  # of this student nothing is known
    save_file({"w": torch.zeros(1000, 10), "v": torch.zeros(5)}, tmp_path / "student" / "model.safetensors")
    size = 12 * 10_005
    assert space.checkpoint_bytes(config) == size
    free = SimpleNamespace(free=2 * size)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: free)
    space.check_space(RunConfig(config))
    free.free -= 1
    with pytest.raises(UserError, match=r"free, but 2 checkpoint\(s\) of"):
        space.check_space(RunConfig(config))
    config.trainer.save_freq = -1
    space.check_space(RunConfig(config))


# ---- the end ----


def test_a_run_ends_with_our_line_and_others_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from ray.exceptions import RayTaskError

    def run_ppo(error: Exception) -> None:
        raise error

    main = SimpleNamespace(run_ppo=run_ppo)
    monkeypatch.setitem(sys.modules, "__main__", main)
    ending.install(dict(os.environ), ends_ray=False)
    ending.install(dict(os.environ), ends_ray=False)
    assert main.run_ppo.relay_original is run_ppo, "a second run of a sweep wraps it once"
    remote = RayTaskError("save", "a long\ntraceback", saving.SaveError("no room"))
    for error in (saving.SaveError("no room"), remote, remote.as_instanceof_cause()):
        with pytest.raises(SystemExit) as end:
            main.run_ppo(error)
        assert end.value.code == "relay_verl: no room"
    with pytest.raises(KeyError):
        main.run_ppo(KeyError("theirs"))


def test_a_record_is_plain_json(config: Any) -> None:
    folder = save_checkpoint(config, 5)
    assert json.loads((folder / CHECKPOINT_FILE).read_text())["step"] == 5


def test_a_folder_in_the_home_folder_is_where_the_shell_would_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl makes a folder named `~` of it (transformers#10628), and samples went to another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = make_config(tmp_path)
    config.trainer.default_local_dir = "~/checkpoints"
    check_resume(config)
    assert config.trainer.default_local_dir == str(tmp_path / "home" / "checkpoints")
    assert runs_folder(config) == tmp_path / "home" / "checkpoints"
