"""Keys that cancel each other, keys that verl no longer reads, and the path at which a training resumes."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from relay_verl.checkpoints.resume import check_resume, check_sft_resume
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.contradictions import check_contradictions
from relay_verl.preflight.wiring import check_reward_manager
from tests.helpers.checkpoints import make_config, save_checkpoint
from tests.helpers.errors import one_line


def config(**overrides: Any) -> Any:
    """The keys that these checks read, as verl composes them."""
    node = OmegaConf.create(
        {
            "trainer": {
                "val_only": False,
                "val_before_train": False,
                "save_freq": 20,
                "resume_mode": "auto",
                "resume_from_path": None,
            },
            "actor_rollout_ref": {"rollout": {"val_kwargs": {"n": 1, "do_sample": False}}},
            "reward": {
                "reward_manager": {"source": "register", "name": "relay"},
                "custom_reward_function": {"path": None, "name": "compute_score"},
                "sandbox_fusion": {"url": None},
            },
            "custom_reward_function": {"path": None, "name": None},
            "reward_model": {"enable": None, "reward_manager": None, "model": {"path": None}},
            "sandbox_fusion": {"url": None},
        }
    )
    for key, value in overrides.items():
        OmegaConf.update(node, key, value)
    return node


REFUSED = [
    # overrides, beginning of the line, what else it names
    ({"trainer.val_only": True}, "trainer.val_only=true: ", "trainer.val_before_train=true"),
    ({"trainer.resume_from_path": "/runs/global_step_2"}, "trainer.resume_from_path=/runs/global_step_2: ",
     "trainer.resume_mode=resume_path"),
    ({"trainer.resume_from_path": "/runs/global_step_2", "trainer.resume_mode": "disable"},
     "trainer.resume_from_path=/runs/global_step_2: ", "trainer.resume_mode=disable"),
    ({"custom_reward_function.path": "mine.py"}, "custom_reward_function.path=mine.py: ",
     "reward.custom_reward_function"),
    ({"reward_model.reward_manager": "naive"}, "reward_model.reward_manager=naive: ", "null"),
    ({"reward_model.enable": True}, "reward_model.enable=true: ", "null"),
    ({"reward_model.model.path": "big"}, "reward_model.model.path=big: ", "null"),
    ({"sandbox_fusion.url": "http://sandbox"}, "sandbox_fusion.url=http://sandbox: ", "reward.sandbox_fusion"),
    ({"reward.sandbox_fusion.url": "http://sandbox"}, "reward.sandbox_fusion.url=http://sandbox: ", "null"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "begins", "names"), REFUSED, ids=[begins for _, begins, _ in REFUSED])
def test_what_would_be_left_out_is_refused(overrides: dict, begins: str, names: str) -> None:
    line = one_line(check_contradictions, config(**overrides))
    assert line.startswith(begins)
    assert names in line


ACCEPTED = [
    # overrides, whether it is a doubt, why
    ({}, False, "a training"),
    ({"trainer.val_only": True, "trainer.val_before_train": True}, False, "a validation alone"),
    ({"trainer.resume_from_path": "/runs/global_step_2", "trainer.resume_mode": "resume_path"}, False, "both"),
    ({"actor_rollout_ref.rollout.val_kwargs.n": 4}, True, "the same greedy response four times"),
    ({"actor_rollout_ref.rollout.val_kwargs.n": 4, "actor_rollout_ref.rollout.val_kwargs.do_sample": True}, False,
     "four samples"),
    ({"relay.defer.head": "heads/citer"}, True, "training asks no head"),
    ({"trainer.save_freq": -1}, True, "nothing is kept"),
    ({"trainer.save_freq": -1, "trainer.val_only": True, "trainer.val_before_train": True}, False, "nothing to keep"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "is_doubtful", "why"), ACCEPTED, ids=[why for *_, why in ACCEPTED])
def test_what_is_accepted(overrides: dict, is_doubtful: bool, why: str) -> None:
    assert isinstance(check_contradictions(config(**overrides)), CheckWarning) is is_doubtful, why


def test_a_config_without_these_keys_passes() -> None:
    check_contradictions(OmegaConf.create({"data": {}}))


# ---- a reward of one's own ----

MANAGER = """
from relay_verl.trainer.reward_manager import RelayRewardManager

class Manager(RelayRewardManager): pass

def compute_score(data_source, solution_str, ground_truth, extra_info=None): return 1.0
"""


def test_a_reward_function_beside_our_manager_is_refused() -> None:
    line = one_line(check_reward_manager, config(**{"reward.custom_reward_function.path": "/no/such.py"}))
    assert line.startswith("reward.custom_reward_function.path=/no/such.py: ")


def test_a_reward_function_for_a_manager_of_ones_own_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MANAGER)
    own = {
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "Manager",
        "reward.reward_manager.module.path": str(path),
    }
    assert check_reward_manager(config(**own, **{"reward.custom_reward_function.path": str(path)})) == "Manager"
    for changes, part in (
        ({"reward.custom_reward_function.path": str(tmp_path / "no.py")}, "no.py"),
        ({"reward.custom_reward_function.path": str(path), "reward.custom_reward_function.name": "scor"}, "name=scor"),
    ):
        line = one_line(check_reward_manager, config(**own, **changes))
        assert line.startswith("reward.custom_reward_function.path=")
        assert part in line


# ---- where a training resumes ----


@pytest.mark.parametrize("written", ["{}/", "{}//", "{}/.", "./{relative}/"])
def test_verl_gets_the_path_that_was_checked(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl reads the step off whatever stands behind the last `global_step_`."""
    run = make_config(tmp_path)
    folder = save_checkpoint(run, 2)
    monkeypatch.chdir(tmp_path)
    run.trainer.resume_mode = "resume_path"
    run.trainer.resume_from_path = written.format(folder, relative=folder.relative_to(tmp_path))
    check_resume(run)
    assert run.trainer.resume_from_path == str(folder)
    assert int(run.trainer.resume_from_path.split("global_step_")[-1]) == 2


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_config(tmp_path)
    folder = save_checkpoint(run, 2)
    monkeypatch.setenv("HOME", str(tmp_path))
    run.trainer.resume_mode, run.trainer.resume_from_path = "resume_path", f"~/{folder.relative_to(tmp_path)}"
    check_resume(run)
    assert run.trainer.resume_from_path == str(folder)


@pytest.mark.parametrize("mode", ["auto", "resume_path"])
def test_a_checkpoint_behind_the_last_step_is_said(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_config(tmp_path, **{"trainer.total_training_steps": 5})
    folder = save_checkpoint(run, 5)
    run.trainer.resume_mode = mode
    run.trainer.resume_from_path = str(folder) if mode == "resume_path" else None
    check_resume(run)
    assert "trainer.total_training_steps=5: " in capsys.readouterr().err


def test_the_warm_ups_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "global_step_3"
    folder.mkdir()

    def warmup(mode: str, path: str | None) -> Any:
        return OmegaConf.create({"trainer": {"resume_mode": mode, "resume_from_path": path}})

    given = warmup("resume_path", f"{folder}/")
    assert check_sft_resume(given) == given.trainer.resume_from_path == str(folder)
    assert check_sft_resume(warmup("auto", None)) == "auto"
    for mode, path, part in (
        ("resume_path", None, "resume_from_path=None: name a folder global_step_N"),
        ("resume_path", str(tmp_path), "name a folder global_step_N"),
        ("resume_path", str(tmp_path / "global_step_4"), "global_step_4 does not exist"),
        ("auto", str(tmp_path / "global_step_4"), "global_step_4 does not exist"),
        ("resume", None, "trainer.resume_mode=resume: allowed: "),
    ):
        assert part in one_line(check_sft_resume, warmup(mode, path))
