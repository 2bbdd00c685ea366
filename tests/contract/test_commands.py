"""Every command that a page names is run by a test, or is listed here with the reason why it cannot be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from relay_verl.cli.main import app
from relay_verl.recipes.compose import compose_overrides
from tests.helpers.pages import PAGES, ROOT

STARTS = (
    "bash ",
    "make ",
    "relay-verl ",
    "python ",
    "pip ",
    "uv ",
    "ray ",
    "torchrun ",
    "kubectl ",
    "RECIPE=",
    "cd ",
    "export ",
)

RUN_BY = {
    "pip install -e examples/extend": "tests/helpers/extension.py",
    "make help": "tests/contract/test_project_files.py",
    "make wheel": ".ci/run",
    "make test": ".ci/run",
    "make docs-check": ".ci/run",
    "make lint": ".ci/run",
    "python examples/tiny/ship.py": "tests/unit/demo/test_packing.py",
    "python examples/tiny/stage_one.py": "tests/e2e/conftest.py",
    "python examples/tiny/pretrain.py": "tests/e2e/test_tiny_pair.py",
    "python examples/cluster/local_cluster.py": "tests/helpers/local_cluster.py",
    "python examples/gpu/training.py": "tests/e2e/test_gpu_example.py",
    "python examples/python/batch.py": "tests/unit/pair/test_relay_pair.py",
    "python examples/python/own_engine.py": "tests/unit/pair/test_relay_pair.py",
    "python examples/python/stream.py": "tests/unit/pair/test_relay_pair.py",
    "bash examples/gpu/first_light.sh": "tests/e2e/test_gpu_example.py",
    "python examples/gpu/pack.py": "tests/unit/examples/test_pack.py",
    "python tests/grading_agreement.py": "tests/unit/grading/test_grading.py",
    "python tests/grading_mutations.py": "tests/unit/grading/test_grading_compare.py",
    "python tests/overlap_agreement.py": "tests/unit/data/test_overlap_pairs.py",
    "python examples/tiny/tables.py --help": "tests/contract/test_commands.py",
    "python examples/tiny/tables.py --plan": "tests/unit/examples/test_tables.py",
    "pip install --no-deps --target dist/plugin .": "tests/conftest.py",
    "ray job submit": "tests/helpers/cluster_training.py",
    "relay-verl --help": "tests/unit/cli/test_cli.py",
    "python examples/defer/chain.py": "tests/e2e/test_defer_chain.py",
    "relay-verl calibrate": "tests/e2e/test_defer_chain.py",
    "relay-verl defer-data": "examples/defer/chain.py",
    "relay-verl defer-train": "examples/defer/chain.py",
    "relay-verl bench eval": "tests/e2e/test_eval.py",
    "relay-verl bench scale": "tests/unit/bench/test_scale.py",
    "relay-verl bench serve": "tests/e2e/test_clients.py",
    "relay-verl data": "tests/unit/trainer/test_datasets.py",
    "relay-verl chat": "tests/unit/cli/test_chat.py",
    "relay-verl claims": "tests/unit/report/test_claims.py",
    "relay-verl condense": "tests/unit/traces/test_condensed.py",
    "relay-verl doctor": "tests/contract/test_doctor.py",
    "relay-verl eval": "tests/e2e/test_eval.py",
    "relay-verl export": "tests/unit/checkpoints/test_export.py",
    "relay-verl filter": "tests/e2e/test_generators.py",
    "relay-verl frontier": "tests/contract/test_frontier.py",
    "relay-verl generate": "tests/unit/cli/test_chat.py",
    "relay-verl judge": "tests/unit/judging/test_judge.py",
    "relay-verl models": "tests/unit/weights/test_weights.py",
    "relay-verl recipes": "tests/unit/recipes/test_recipes.py",
    "relay-verl report": "tests/unit/report/test_report.py",
    "relay-verl demo": "tests/unit/demo/test_demo.py",
    "relay-verl learned": "tests/unit/report/test_learned.py",
    "relay-verl reproduction": "tests/unit/report/test_reproduction.py",
    "relay-verl serve": "tests/e2e/test_serve.py",
    "bash examples/serving/teacher.sh": "tests/e2e/test_serve.py",
    "relay-verl trace": "tests/unit/pages/test_trace.py",
    "relay-verl version": "tests/contract/test_commands.py",
    "relay-verl warmup-data": "tests/e2e/test_generators.py",
    "python -m verl.trainer.main_ppo": "tests/helpers/training.py",
    "torchrun --standalone --nproc_per_node=8 -m verl.trainer.sft_trainer": "examples/tiny/stage_one.py",
}
"""The test, or what a test runs, by how the command begins; the test uses the models and the recipe it has."""

NOT_RUN = {
    "make setup": "gigabytes; every other target runs it in a fresh clone",
    "make unit": "this test is part of the same suite; make test runs all of tests/unit",
    ".venv/bin/pre-commit install": "writes into the clone's hooks; each hook's command is one of make lint's",
    "make quickstart": "16 minutes; the end-to-end tests run its parts",
    "relay-verl quickstart": "20 minutes; the end-to-end tests run its parts",
    "relay-verl --install-completion": "writes into the shell's files",
    "make tables": "hours; tests/unit/examples/test_tables.py runs its steps without models",
    "python examples/tiny/tables.py --seed-set": "likewise",
    "python examples/tiny/tables.py --keep": "likewise",
    "make real": "hours; tests/e2e/test_real.py runs two of its training steps where the models are installed",
    "python examples/real/real.py": "likewise",
    "vllm serve": "needs a GPU; tests/e2e/test_eval.py serves an endpoint on CPU",
    "python -m vllm.entrypoints.openai.api_server": "takes a fixed port; relay_verl.serving takes a free one",
    "python tests/replica_kills.py": "minutes; tests/unit/models/test_replica_client.py kills replicas in the same way",
    "python tests/serving_cost.py": "a minute of timing, not useful as a test",
    "python tests/serving_storm.py": "minutes; tests/unit/serving/test_clients.py storms a server in the same way",
    "relay-verl bench": "minutes of timing, not useful as a test; relay_verl/bench/README.md has what it printed",
    "pip install -e '.[gpu]'": "there is no GPU; tests/contract/test_install.py resolves it",
    "uv pip install --torch-backend=cpu -e '.[cpu]'": "gigabytes; tests/contract/test_install.py resolves it",
    "pip install flash-attn --no-build-isolation": "its build needs CUDA's compiler",
    "pip install 'relay-verl[wandb]'": "no index has the package yet; the extra is a line of setup.cfg",
    "RECIPE=relay_1.7b sbatch": "there is no SLURM; bash parses the script",
    "ray list": "named for what it shows; tests/e2e/test_workers.py reads the same listing",
    "ray start": "starts a node of a cluster; local_cluster.py starts such nodes through Ray itself",
    "curl": "asks a server on a port of its own; tests/e2e/test_serve.py asks one on a free port",
    "kubectl create": "there is no Kubernetes",
    "kubectl apply": "there is no Kubernetes; the file is read and its command composed",
    "export ": "sets a variable",
    "cd ": "changes the folder",
}
"""Why not, by how the command begins."""


def documented() -> list[str]:
    """The commands in the pages' blocks and between their backticks."""
    commands = []
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            commands += [line for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.split("#")[0].strip()]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        spans = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
        commands += [code for code in spans if code.startswith(STARTS)]
    return sorted({" ".join(command.split("  #")[0].split()) for command in commands})


@pytest.mark.parametrize("command", documented())
def test_a_documented_command_is_run_or_listed(command: str) -> None:
    known = [start for start in [*RUN_BY, *NOT_RUN] if command.startswith(start)]
    assert known, "run it in a test and name that in RUN_BY, or say in NOT_RUN why not"


@pytest.mark.parametrize("start", [*RUN_BY, *NOT_RUN])
def test_no_entry_here_is_obsolete(start: str) -> None:
    assert any(command.startswith(start) for command in documented())


@pytest.mark.parametrize(("start", "where"), RUN_BY.items())
def test_what_runs_it_is_there(start: str, where: str) -> None:
    """The file names the command's own word: the subcommand, the module, the script, the target."""
    words = {"relay-verl": 1, "make": 1, "python": 1, "pip": 1, "ray": 1, "torchrun": -1, "bash": 1}
    parts = start.split()
    word = parts[2] if parts[1] == "-m" else parts[words[parts[0]]]
    text = (ROOT / where).read_text()
    assert Path(word).name.removesuffix(".py").removesuffix(".sh").split(".")[-1] in text


def test_the_versions_can_be_printed() -> None:
    printed = CliRunner().invoke(app, ["version"])
    assert printed.exit_code == 0
    assert "verl" in printed.output


def test_the_tables_say_which_sets_they_train() -> None:
    program = [sys.executable, str(ROOT / "examples" / "tiny" / "tables.py"), "--help"]
    printed = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert printed.returncode == 0, printed.stderr
    assert {"--rows", "--seed-set", "--keep"} <= set(re.findall(r"--[a-z-]+", printed.stdout))


def test_the_cluster_files_name_recipes_and_keys_that_compose() -> None:
    """KubeRay's entry point is composed as it stands; the runtime environment names the packages of an installation."""
    folder = ROOT / "examples" / "cluster"
    job = yaml.safe_load((folder / "kuberay.yaml").read_text())
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    config = compose_overrides(words[3:])
    groups = {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    resource = config.relay.teacher.node_resource
    assert resource in groups["teacher"]["rayStartParams"]["resources"]
    limits = groups["teacher"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    needed = config.relay.teacher.num_replicas * config.relay.teacher.tensor_parallel_size
    assert int(limits["nvidia.com/gpu"]) >= needed
    carried = yaml.safe_load((folder / "runtime_env.yaml").read_text())["py_modules"]
    version = re.search(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert version
    assert {Path(path).name for path in carried} == {
        "relay_verl",
        "relay_verl_recipes",
        "hydra_plugins",
        f"relay_verl-{version[1]}.dist-info",
    }


def test_the_slurm_script_is_one_that_bash_reads() -> None:
    script = ROOT / "examples" / "cluster" / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "relay.teacher.node_resource=teacher" in script.read_text()
