"""A sweep over recipes in one process, in a folder whose name Hydra, verl, datasets and vLLM have to take as it is.

Its runs train on packed sequences, as the recipes for GPUs do: they give the steps that padded ones give.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from relay_verl.recipes.grammar import override
from tests.helpers.cluster_training import Job, read_log
from tests.helpers.training import command, read_metrics, start

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(2400)]

NUM_STEPS = 2
RECIPES = "relay_tiny_simple,relay_tiny"
"""The last one is that of the job, and the log of the metrics is its own: each run empties the file."""
PACKED = [
    "+relay=deterministic",
    f"trainer.total_training_steps={NUM_STEPS}",
    f"trainer.save_freq={NUM_STEPS}",
    "actor_rollout_ref.model.use_remove_padding=true",  # here under sdpa
    "actor_rollout_ref.actor.use_dynamic_bsz=true",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=256",  # a few responses a batch
    "actor_rollout_ref.ref.log_prob_use_dynamic_bsz=true",
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
]
SAME_IF_PACKED = ("actor/pg_loss", "actor/kl_loss", "actor/entropy", "actor/grad_norm", "critic/rewards/mean")


@pytest.fixture(scope="module")
def sweep(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep without a visible GPU."""
    folder = tmp_path_factory.mktemp("sweep") / 'relay (copy), a=b #1 it\'s "x" & ~ü 用户'
    world = folder / "pair"
    shutil.copytree(pair, world)
    run = folder / "run"
    place = override("trainer.default_local_dir", run / "checkpoints")[:-1] + '/${relay.reward.kind}"'
    words = command(run, override("hydra.sweep.dir", run / "sweep"), place, *PACKED, recipe=RECIPES)
    driver = start([*words, "-m"], run, "log", {"RELAY_TINY_DIR": str(world), "CUDA_VISIBLE_DEVICES": ""})
    try:
        code = driver.wait(timeout=1200)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        driver.kill()
    assert code == 0, read_log(run, "log")
    return run


def test_each_recipe_trains_in_a_folder_of_any_name(sweep: Path) -> None:
    """Each run of it ends Ray, so that the next finds its GPUs; Hydra, verl, datasets and vLLM take the paths."""
    records = sweep.glob(f"checkpoints/*/global_step_{NUM_STEPS}/relay_checkpoint.json")
    assert {record.parent.parent.name for record in records} == {"simple", "difficulty_aware"}


def test_packed_sequences_give_the_steps_that_padded_ones_give(sweep: Path, job: Job) -> None:
    """Each sample has its seed, so both runs train on the same responses; the job's are padded."""
    packed_steps = read_metrics(sweep)
    assert len(packed_steps) == NUM_STEPS
    for padded, packed in zip(job.metrics, packed_steps, strict=False):
        expected = pytest.approx({key: padded[key] for key in SAME_IF_PACKED}, abs=1e-5)
        assert {key: packed[key] for key in SAME_IF_PACKED} == expected
        assert packed["training/rollout_probs_diff_max"] < 1e-4, "the engine and the trainer read the same text"
