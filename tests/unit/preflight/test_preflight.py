"""Checks before a model loads: every message has one line, and names the key, the value and what is allowed."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from relay_verl.config import TeacherSettings, read_settings
from relay_verl.models.address import check_model_path
from relay_verl.models.tokenizers import compare_tokenizers
from relay_verl.preflight import model_checks as models
from relay_verl.preflight import training as preflight
from relay_verl.preflight.config_checks import (
    check_batch_sizes,
    check_declared_gpus,
    check_platform,
    check_recipe_was_found,
)
from relay_verl.preflight.data_checks import check_data_sources, check_dataset
from relay_verl.preflight.model_checks import check_teacher
from relay_verl.preflight.training import check_config
from relay_verl.recipes.recipe import recipe_names
from relay_verl.run_config import RunConfig
from tests.helpers.errors import names, one_line
from tests.helpers.tokenizers import BPE_WORDS, bpe, make_bpe

# ---- the recipe ----


@pytest.mark.parametrize("key", ["recipe", "recipes", "recpe", "receipe", "reciepe", "Recipe"])
def test_a_recipe_that_became_a_key(key: str) -> None:
    line = one_line(check_recipe_was_found, OmegaConf.create({"data": {}, key: "relay_1.7b"}))
    assert line.startswith(f"{key}=relay_1.7b: ")
    assert "+recipe=" in line
    assert "relay_1.7b_simple" in line


VERL_KEYS = (
    "actor_rollout_ref algorithm critic custom_reward_function data distillation global_profiler "
    "hydra model_engine ray_kwargs reward reward_model reward_manager teacher trainer transfer_queue"
)


@pytest.mark.parametrize("key", ["relay", *VERL_KEYS.split()])
def test_other_keys_are_no_recipe(key: str) -> None:
    check_recipe_was_found(OmegaConf.create({key: {}}))


def test_recipe_names() -> None:
    names = recipe_names()
    assert {"relay_1.7b", "relay_0.6b_simple", "grpo_1.7b", "relay_tiny"} <= set(names)
    assert names == sorted(names)


# ---- the platform ----


PLATFORM_CASES = [
    # VERL_PLATFORM in the driver, the recipe's for the workers, what to do, why
    ("", None, None, "GPUs"),
    ("cuda", None, None, "GPUs, said aloud"),
    ("cpu", "cpu", None, "CPU"),
    ("", "cpu", "set VERL_PLATFORM=cpu", "verl in the driver would look for CUDA"),
    ("cuda", "cpu", "set VERL_PLATFORM=cpu", "the same"),
    ("cpu", None, "unset it", "left over in the shell"),
]


@pytest.mark.parametrize(("platform", "recipe", "advice", "why"), PLATFORM_CASES)
def test_check_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, recipe: str | None, advice: str | None, why: str
) -> None:
    monkeypatch.setenv("VERL_PLATFORM", platform)
    composed = OmegaConf.create(
        ray_init(**({"runtime_env": {"env_vars": {"VERL_PLATFORM": recipe}}} if recipe else {}))
    )
    if advice is None:
        check_platform(composed)
        if not recipe:
            check_platform(OmegaConf.create({}))
    else:
        line = one_line(check_platform, composed)
        assert f"VERL_PLATFORM={platform!r}" in line, why
        assert advice in line


def ray_init(**values: Any) -> dict[str, Any]:
    return {"ray_kwargs": {"ray_init": values}}


GPU_CASES = [
    # declared GPUs, trainer's GPUs a node, nodes, teacher, missing (None: enough), why
    (2, 1, 1, {"path": "big"}, None, "one each"),
    (None, 8, 9, {"path": "big"}, None, "Ray counts them itself"),
    (1, 1, 1, {"path": "big"}, 1, "none is left for the teacher"),
    (8, 4, 1, {"path": "big", "num_replicas": 2, "tensor_parallel_size": 4}, 4, "the teacher takes 8"),
    (8, 8, 1, {"base_url": "http://127.0.0.1:9/v1"}, None, "an endpoint takes none here"),
    (8, 8, 2, {"base_url": "http://127.0.0.1:9/v1"}, 8, "the trainer alone takes 16"),
]


@pytest.mark.parametrize(("declared", "gpus", "nodes", "teacher", "missing", "why"), GPU_CASES)
def test_check_declared_gpus(
    declared: int | None, gpus: int, nodes: int, teacher: dict, missing: int | None, why: str
) -> None:
    node = {"relay": {"teacher": teacher}, **sizes(8, 8, 8, gpus, nodes), **ray_init(num_gpus=declared)}
    composed = OmegaConf.create(node)
    if missing is None:
        check_declared_gpus(RunConfig(composed))
    else:
        line = one_line(check_declared_gpus, RunConfig(composed))
        assert line.startswith(f"ray_kwargs.ray_init.num_gpus={declared}: "), why
        assert f"{missing} missing" in line


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "auto"])
def test_gpus_that_a_recipe_declares_are_not_those_of_a_cluster_that_it_joins(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = [{"path": "big", "num_replicas": 2, "name": name} for name in ("one", "other")]
    node = {"relay": {"teachers": teachers}, **sizes(8, 8, 8, 1, 2), **ray_init(num_gpus=2)}
    assert "4 missing" in one_line(check_declared_gpus, RunConfig(OmegaConf.create(node)))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "4 missing" in one_line(check_declared_gpus, RunConfig(OmegaConf.create(node)))
    monkeypatch.setenv("RAY_ADDRESS", address)
    check_declared_gpus(RunConfig(OmegaConf.create(node)))
    monkeypatch.delenv("RAY_ADDRESS")
    check_declared_gpus(RunConfig(OmegaConf.create({**node, **ray_init(num_gpus=2, address=address)})))


# ---- batch sizes ----


def sizes(batch: int, mini: int, n: int, gpus: int, nodes: int) -> Any:
    return OmegaConf.create(
        {
            "data": {"train_batch_size": batch},
            "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": mini}, "rollout": {"n": n}},
            "trainer": {"n_gpus_per_node": gpus, "nnodes": nodes},
        }
    )


@pytest.mark.parametrize("good", [(128, 32, 8, 8, 1), (16, 16, 8, 1, 1), (8, 4, 1, 2, 2), (32, 4, 8, 8, 2)])
def test_batch_sizes_that_fit(good: tuple) -> None:
    check_batch_sizes(sizes(*good))


BAD_SIZES = [
    # batch, mini-batch, n, GPUs, nodes, what the line names, why
    (128, 48, 8, 8, 1, ["data.train_batch_size=128", "ppo_mini_batch_size=48"], "no multiple"),
    (16, 32, 8, 8, 1, ["data.train_batch_size=16", "ppo_mini_batch_size=32"], "smaller than a mini-batch"),
    (8, 4, 1, 8, 1, ["ppo_mini_batch_size=4", "rollout.n=1", "=8 GPUs"], "fewer samples than GPUs"),
    (6, 3, 2, 4, 1, ["ppo_mini_batch_size=3", "rollout.n=2", "=4 GPUs"], "samples do not split"),
    (6, 3, 4, 4, 2, ["ppo_mini_batch_size=3", "rollout.n=4", "=8 GPUs"], "over both nodes"),
    (8, 0, 1, 1, 1, ["ppo_mini_batch_size=0"], "an empty mini-batch"),
    (8, 8, 1, 0, 1, ["n_gpus_per_node"], "no GPU"),
]


@pytest.mark.parametrize(("batch", "mini", "n", "gpus", "nodes", "named", "why"), BAD_SIZES)
def test_batch_sizes_that_do_not_fit(
    batch: int, mini: int, n: int, gpus: int, nodes: int, named: list[str], why: str
) -> None:
    line = one_line(check_batch_sizes, sizes(batch, mini, n, gpus, nodes))
    for name in named:
        assert name in line, why


# ---- data ----


def data(files: Any, prompt_key: str = "prompt") -> Any:
    return OmegaConf.create({"data": {"train_files": files, "prompt_key": prompt_key}})


def write(path: Path, **columns: list) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


ANSWER = [{"style": "rule", "ground_truth": "7"}]
PROMPT = [[{"role": "user", "content": "3+4"}]]


def test_a_dataset_as_it_should_be(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", prompt=PROMPT, reward_model=ANSWER)
    asked = write(tmp_path / "b.parquet", question=PROMPT, reward_model=ANSWER)
    check_dataset(RunConfig(data(good)).data, "train_files")
    check_dataset(RunConfig(data([good, good])).data, "train_files")
    check_dataset(RunConfig(data(asked, prompt_key="question")).data, "train_files")
    check_dataset(RunConfig(data("hdfs://cluster/a.parquet")).data, "train_files")
    check_dataset(RunConfig(data(None)).data, "train_files")
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": PROMPT[0], "reward_model": ANSWER[0]}) + "\n")
    check_dataset(RunConfig(data(str(tmp_path / "a.jsonl"))).data, "train_files")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", prompt=PROMPT, reward_model=ANSWER)
    missing = str(tmp_path / "b.parquet")
    assert (
        one_line(check_dataset, RunConfig(data([good, missing])).data, "train_files")
        == f"data.train_files: {missing} does not exist"
    )
    assert one_line(check_dataset, RunConfig(data("~/no/such/file.parquet")).data, "train_files").startswith(
        "data.train_files: ~/no"
    )


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for content in (b"", b"PAR1", b"question,answer\n1,2\n"):
        path.write_bytes(content)
        assert f"{path} is not a readable parquet file" in one_line(
            check_dataset, RunConfig(data(str(path))).data, "train_files"
        )
    (tmp_path / "folder.parquet").mkdir()
    one_line(check_dataset, RunConfig(data(str(tmp_path / "folder.parquet"))).data, "train_files")


BAD_COLUMNS = [
    # columns, what the line names, why
    ({"reward_model": ANSWER}, ["no column 'prompt'", "it has reward_model"], "no prompt"),
    ({"prompt": PROMPT}, ["no column 'reward_model'", "it has prompt"], "no answers"),
    ({"prompt": PROMPT, "reward_model": [{"style": "rule"}]}, ["no field 'ground_truth'", "it has style"], "no truth"),
    ({"prompt": PROMPT, "reward_model": ["7"]}, ["no field 'ground_truth'", "none"], "a bare string"),
    ({"prompt": PROMPT, "reward_model": [7]}, ["no field 'ground_truth'", "none"], "a bare number"),
    ({"prompt": PROMPT, "reward_model": [["7"]]}, ["no field 'ground_truth'", "none"], "a list"),
    ({"prompt": PROMPT, "reward_model": [None]}, ["no field 'ground_truth'", "none"], "all empty"),
]


@pytest.mark.parametrize(("columns", "named", "why"), BAD_COLUMNS, ids=[why for _, _, why in BAD_COLUMNS])
def test_a_dataset_that_lacks_something(tmp_path: Path, columns: dict, named: list[str], why: str) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    line = one_line(check_dataset, RunConfig(data(path)).data, "train_files")
    assert line.startswith(f"data.train_files: {path} ")
    for name in named:
        assert name in line, why


# ---- models ----


def test_model_paths_that_may_be_right(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for path in (str(tmp_path), "Qwen/Qwen3-8B", "gpt2", "hdfs://cluster/models/qwen"):
        assert check_model_path("k", path) == path


def test_model_paths_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, what in [
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(tmp_path / "empty"), "has no config.json"),
        ("./no/such/model", "does not exist"),
        ("~/no_such_model", "does not exist"),
        ("a/b/c", "does not exist"),
    ]:
        line = one_line(check_model_path, "actor_rollout_ref.model.path", path)
        assert line.startswith(f"actor_rollout_ref.model.path: {path} {what}")


# ---- tokenizers ----


def test_equal_tokenizers() -> None:
    assert compare_tokenizers(bpe(), make_bpe(BPE_WORDS)) == ""


DIFFERENT = [
    # teacher, what is said, why
    (lambda: make_bpe([*BPE_WORDS[:-1], b" xy"]), "tokens have another id or none", "another word"),
    (lambda: make_bpe(BPE_WORDS[::-1]), "tokens have another id", "the same words with other ids"),
    (lambda: make_bpe(BPE_WORDS, added=("<extra>",)), "1 are only the teacher's", "one token more"),
    (lambda: make_bpe(BPE_WORDS, added=("<|other|>",), eos="<|other|>"), "tokens have another id", "another EOS"),
]


@pytest.mark.parametrize(("make_teacher", "said", "why"), DIFFERENT, ids=[why for _, _, why in DIFFERENT])
def test_different_tokenizers(make_teacher: Any, said: str, why: str) -> None:
    difference = compare_tokenizers(bpe(), make_teacher())
    assert said in difference, why
    assert "\n" not in difference


def test_the_same_vocabulary_with_another_eos() -> None:
    ours, theirs = (make_bpe(BPE_WORDS, added=("<|a|>", "<|b|>"), eos=eos) for eos in ("<|a|>", "<|b|>"))
    assert ours.get_vocab() == theirs.get_vocab()
    assert compare_tokenizers(ours, theirs) == "the end-of-sequence token is '<|a|>' and '<|b|>'"


def test_the_same_vocabulary_split_otherwise() -> None:
    from tokenizers import pre_tokenizers

    teacher = make_bpe(BPE_WORDS)
    teacher.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    difference = compare_tokenizers(bpe(), teacher)
    assert "split" in difference
    assert "\n" not in difference


# ---- the teacher ----


CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture
def student(tmp_path: Path) -> str:
    """A model folder with a tokenizer and a chat template."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = CHAT
    return save(tmp_path / "student", tokenizer)


def save(path: Path, tokenizer: Any) -> str:
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text("{}")  # a model_type would make transformers rebuild the tokenizer its own way
    return str(path)


def test_a_teacher_with_the_same_tokenizer(tmp_path: Path, student: str) -> None:
    check_teacher(
        "relay.teacher",
        read_settings({"teacher": {"path": save(tmp_path / "teacher", make_bpe(BPE_WORDS))}}).teacher,
        student,
    )


def test_a_teacher_with_another_tokenizer(tmp_path: Path, student: str) -> None:
    path = save(tmp_path / "teacher", make_bpe(BPE_WORDS[:4]))
    line = one_line(check_teacher, "relay.teacher", read_settings({"teacher": {"path": path}}).teacher, student)
    assert names(line, "relay.teacher.path: ", path, student)


def test_a_model_without_a_tokenizer(tmp_path: Path, student: str) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    teacher = read_settings({"teacher": {"path": str(tmp_path / "bare")}}).teacher
    line = one_line(check_teacher, "relay.teacher", teacher, student)
    assert names(line, f"relay.teacher.path: {tmp_path}/bare ", "tokenizer")


def test_a_teacher_that_is_not_there(tmp_path: Path, student: str) -> None:
    line = one_line(
        check_teacher, "relay.teacher", read_settings({"teacher": {"path": str(tmp_path / "nowhere")}}).teacher, student
    )
    assert line.startswith(f"relay.teacher.path: {tmp_path}/nowhere does not exist")


def endpoint(url: str, **values: Any) -> Any:
    return read_settings({"teacher": {"base_url": url, **values}}).teacher


def test_an_endpoint_with_the_same_tokenizer(fake_vllm: Any, student: str) -> None:
    fake_vllm.routes["/tokenize"] = lambda body: {"tokens": bpe().encode(body["prompt"], add_special_tokens=False)}
    check_teacher("relay.teacher", endpoint(fake_vllm.url), student)


def test_an_endpoint_with_another_tokenizer(fake_vllm: Any, student: str) -> None:
    fake_vllm.routes["/tokenize"] = {"tokens": [1, 2, 3]}
    line = one_line(check_teacher, "relay.teacher", endpoint(fake_vllm.url), student)
    assert names(line, "relay.teacher.base_url: ", fake_vllm.url, student)


def test_an_endpoint_that_cannot_tokenize_is_taken_at_its_word(fake_vllm: Any, student: str) -> None:
    check_teacher("relay.teacher", endpoint(fake_vllm.url), student)


def test_an_endpoint_that_is_down(fake_vllm: Any, student: str) -> None:
    fake_vllm.stop()
    line = one_line(check_teacher, "relay.teacher", endpoint(fake_vllm.url), student)
    assert line.startswith(f"relay.teacher.base_url: {fake_vllm.url} does not answer")


def test_an_endpoint_that_is_slow(fake_vllm: Any, student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(models, "ENDPOINT_DEADLINE_S", 0.1)
    fake_vllm.routes["/v1/models"] = lambda body: time.sleep(0.5)
    assert "does not answer" in one_line(check_teacher, "relay.teacher", endpoint(fake_vllm.url), student)


def test_an_endpoint_without_the_model(fake_vllm: Any, student: str) -> None:
    line = one_line(check_teacher, "relay.teacher", endpoint(fake_vllm.url, model="huge"), student)
    assert names(line, "", "huge", "big")


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize"])
@pytest.mark.parametrize("answer", [b"<html>Welcome</html>", [1], {"data": None}], ids=["page", "list", "object"])
def test_an_endpoint_that_is_something_else(fake_vllm: Any, student: str, path: str, answer: Any) -> None:
    fake_vllm.routes["/tokenize"] = {"tokens": bpe().encode(models.PROBE, add_special_tokens=False)}
    fake_vllm.routes[path] = answer
    if path == "/tokenize" and isinstance(answer, dict):
        check_teacher("relay.teacher", endpoint(fake_vllm.url), student)  # it has no tokens to compare
    else:
        assert fake_vllm.url.removesuffix("/v1") in one_line(
            check_teacher, "relay.teacher", endpoint(fake_vllm.url), student
        )


# ---- a text bridge ----


def bridged(tmp_path: Path, template: str | None = "{{ messages }}", **values: Any) -> TeacherSettings:
    tokenizer = make_bpe(BPE_WORDS[:4])
    tokenizer.chat_template = template
    path = save(tmp_path / "teacher", tokenizer)
    return TeacherSettings(**{"path": path, "text_bridge": True, **values})


def test_a_bridged_teacher_may_have_another_tokenizer_and_says_what_it_costs(tmp_path: Path, student: str) -> None:
    teacher = bridged(tmp_path)
    line = check_teacher("relay.teachers.1", teacher, student)
    assert names(line, "relay.teachers.1.text_bridge", teacher.path, "tokenizer")
    for cost in ("decoded and encoded again", "student's tokens", "prefix cache"):
        assert cost in line


def test_without_the_bridge_the_line_names_it(tmp_path: Path, student: str) -> None:
    teacher = bridged(tmp_path, text_bridge=False)
    line = one_line(check_teacher, "relay.teachers.1", teacher, student)
    assert names(line, "relay.teachers.1.path: ", teacher.path, student, "relay.teachers.1.text_bridge=true")


def test_a_bridge_that_is_not_needed_says_so(tmp_path: Path, student: str) -> None:
    teacher = bridged(tmp_path, tokenizer=student)
    (tmp_path / "student" / "chat_template.jinja").write_text("{{ messages }}")
    assert "has the student's tokenizer" in check_teacher("relay.teacher", teacher, student)


def test_a_bridge_needs_a_chat_template_and_a_tokenizer(tmp_path: Path, student: str) -> None:
    line = one_line(check_teacher, "relay.teacher", bridged(tmp_path, template=None), student)
    assert line.startswith("relay.teacher.text_bridge: ")
    assert "no chat template" in line
    nowhere = bridged(tmp_path, tokenizer=str(tmp_path / "nowhere"))
    line = one_line(check_teacher, "relay.teacher", nowhere, student)
    assert names(line, f"relay.teacher.tokenizer: {tmp_path}/nowhere ", "tokenizer")


def test_a_bridged_endpoint_must_have_the_tokenizer_that_was_named(
    tmp_path: Path, student: str, fake_vllm: Any
) -> None:
    folder = bridged(tmp_path).path
    teacher = bridged(tmp_path, path=None, base_url=fake_vllm.url, tokenizer=folder)
    named = make_bpe(BPE_WORDS[:4])
    fake_vllm.routes["/tokenize"] = lambda body: {"tokens": named.encode(body["prompt"], add_special_tokens=False)}
    check_teacher("relay.teacher", teacher, student)
    fake_vllm.routes["/tokenize"] = lambda body: {"tokens": bpe().encode(body["prompt"], add_special_tokens=False)}
    line = one_line(check_teacher, "relay.teacher", teacher, student)
    assert names(line, "relay.teacher.base_url: ", fake_vllm.url, folder, "tokenizer")


# ---- several teachers ----

ROUTES = [
    # data sources of each teacher (None: all), column of the dataset, part of the line (None: fine), why
    ([None], None, None, "one for all needs no column"),
    ([["math"], None], None, None, "somebody takes the rest"),
    ([["math"], ["code"]], ["math", "code"], None, "each has one"),
    ([["math"], ["code"]], ["math", "law"], "data_source='law', which no teacher answers; their data_sources: math, c",
     "one has none"),
    ([["math"]], ["math", None], "data_source=None, which no teacher answers", "a query without"),
    ([["math"]], None, "has no column 'data_source'", "nothing to route by"),
]  # fmt: skip


@pytest.mark.parametrize(("sources", "column", "said", "why"), ROUTES, ids=[why for *_, why in ROUTES])
def test_every_query_has_a_teacher(
    tmp_path: Path, sources: list, column: list | None, said: str | None, why: str
) -> None:
    rows = len(column or [None])
    columns = {"data_source": column} if column else {}
    file = write(tmp_path / "a.parquet", prompt=PROMPT * rows, reward_model=ANSWER * rows, **columns)
    config = OmegaConf.create({"data": {"train_files": [], "val_files": file, "prompt_key": "prompt"}})
    teachers = [{"path": f"t{index}", "data_sources": names} for index, names in enumerate(sources)]
    settings = read_settings({"teachers": teachers})
    if said is None:
        check_data_sources(RunConfig(config).data, settings)
    else:
        line = one_line(check_data_sources, RunConfig(config).data, settings)
        assert line.startswith(f"data.val_files: {file} has "), why
        assert said in line, why


def test_the_gpus_of_all_teachers_count() -> None:
    teachers = [{"path": "a", "num_replicas": 2}, {"path": "b", "tensor_parallel_size": 2}, {"path": "c", "weight": 0}]
    node = {"relay": {"teachers": [*teachers, {"base_url": "http://127.0.0.1:9/v1"}]}, **sizes(8, 8, 8, 4, 1)}
    check_declared_gpus(RunConfig(OmegaConf.create({**node, **ray_init(num_gpus=8)})))
    line = one_line(check_declared_gpus, RunConfig(OmegaConf.create({**node, **ray_init(num_gpus=6)})))
    assert "the teacher 4 (relay.teachers.0.num_replicas x relay.teachers.0.tensor_parallel_size + " in line
    assert line.endswith("2 missing")


def test_every_listed_teacher_is_checked(good: Any, tmp_path: Path) -> None:
    teacher = {"path": good.relay.teacher.path}
    several = OmegaConf.merge(good, {"relay": {"teachers": [teacher, {"path": "/no/such/one"}]}})
    assert one_line(check_config, several).startswith("relay.teachers.1.path: /no/such/one does not exist")
    unrouted = OmegaConf.merge(good, {"relay": {"teachers": [teacher | {"data_sources": ["math"]}]}})
    assert "has no column 'data_source'" in one_line(check_config, unrouted)


# ---- all of it ----


def composed(student: str, files: str, teacher: str) -> dict[str, Any]:
    return {
        "data": {
            "train_files": files,
            "val_files": [files],
            "prompt_key": "prompt",
            "train_batch_size": 8,
            "max_response_length": 64,
        },
        "actor_rollout_ref": {
            "model": {"path": student},
            "actor": {"ppo_mini_batch_size": 8, "use_dynamic_bsz": True},
            "rollout": {"n": 8},
        },
        "trainer": {"n_gpus_per_node": 8, "nnodes": 1},
        "relay": {"teacher": {"path": teacher}},
    }


@pytest.fixture
def good(tmp_path: Path, student: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A composed config that passes."""
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    files = write(tmp_path / "a.parquet", prompt=PROMPT * 8, reward_model=ANSWER * 8)
    return OmegaConf.create(composed(student, files, save(tmp_path / "teacher", bpe())))


def test_a_config_that_passes(good: Any) -> None:
    before = OmegaConf.to_yaml(good)
    check_config(good)
    assert OmegaConf.to_yaml(good) == before, "nothing is changed on the way"


def test_a_config_that_is_not_ours_is_left_alone() -> None:
    check_config(OmegaConf.create({"data": {"train_files": "/no/such/file.parquet"}}))


MISTAKES = [
    # override, beginning of the line
    ({"recipe": "relay_1.7b"}, "recipe=relay_1.7b: "),
    ({"relay": {"max_calls": -1}}, "relay.max_calls: -1: "),
    ({"relay": {"teachr": {}}}, "relay.teachr: unknown key"),
    ({"relay": {"teacher": {"path": None}}}, "relay.teacher: no teacher given"),
    ({"relay": {"teacher": {"path": "/no/such/teacher"}}}, "relay.teacher.path: /no/such/teacher does not exist"),
    ({"ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": {"VERL_PLATFORM": "cpu"}}}}}, "VERL_PLATFORM='' in"),
    ({"data": {"train_batch_size": 9}}, "data.train_batch_size=9 "),
    ({"data": {"min_pass_rate": 0.5}}, "data.train_files: "),
    ({"data": {"val_files": ["/no/such.parquet"]}}, "data.val_files: /no/such.parquet does not exist"),
    ({"actor_rollout_ref": {"model": {"path": "/no/such"}}}, "actor_rollout_ref.model.path: /no/such does not exist"),
]


@pytest.mark.parametrize(("override", "line"), MISTAKES, ids=[line for _, line in MISTAKES])
def test_a_mistake_ends_the_program_with_one_line(good: Any, override: dict, line: str) -> None:
    mistaken = OmegaConf.merge(good, override)
    assert one_line(check_config, mistaken).startswith(line)
    verl_config = SimpleNamespace(validate_config=lambda *args: pytest.fail("verl went on"))
    preflight.install_check(verl_config, "validate_config", check_config)
    with pytest.raises(SystemExit) as end:
        verl_config.validate_config(mistaken)
    assert str(end.value.code).startswith(f"relay_verl: {line}")


def test_a_training_set_without_pass_counts_names_the_command_that_makes_them(good: Any) -> None:
    line = one_line(check_config, OmegaConf.merge(good, {"data": {"min_pass_rate": 0.5}}))
    assert "has no column 'teacher_pass'" in line
    assert "relay-verl filter" in line


def test_pass_counts_that_leave_nothing_to_train_on_are_one_line(good: Any, tmp_path: Path) -> None:
    counts = [{"num_samples": 10, "num_done": 10, "num_correct": 5}]
    path = write(tmp_path / "filtered.parquet", prompt=PROMPT * 8, reward_model=ANSWER * 8, teacher_pass=counts * 8)
    config = OmegaConf.merge(good, {"data": {"min_pass_rate": 0.5, "train_files": path}})
    check_config(config)
    config.data.min_pass_rate = 0.6
    assert names(one_line(check_config, config), "", 8, "0.6")


def sft(tmp_path: Path, student: str) -> Any:
    data = write(tmp_path / "warmup.parquet", input_ids=[[1, 2]], loss_mask=[[0, 1]], is_finished=[True])
    return OmegaConf.create(
        {
            "data": {"train_files": data, "custom_cls": {"name": "WarmupDataset"}},
            "model": {"path": student, "override_config": {"attn_implementation": "sdpa"}},
            "trainer": {"device": "cuda"},
        }
    )


SFT_MISTAKES = [
    # override, part of the line
    ({"recip": "warmup_1.7b"}, "recip=warmup_1.7b: no recipe was loaded"),
    ({"trainer": {"device": "cpu"}}, "trainer.device=cpu: set VERL_PLATFORM=cpu"),
    ({"model": {"path": "/no/such"}}, "model.path: /no/such does not exist"),
    ({"data": {"train_files": "/no/such.parquet"}}, "data.train_files: /no/such.parquet does not exist"),
]


@pytest.mark.parametrize(("override", "line"), SFT_MISTAKES, ids=[line for _, line in SFT_MISTAKES])
def test_a_mistake_in_a_warm_up_is_one_line(
    override: dict, line: str, tmp_path: Path, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config = sft(tmp_path, student)
    preflight.check_sft_config(config)
    assert line in one_line(preflight.check_sft_config, OmegaConf.merge(config, override))


def test_a_warm_up_on_data_of_another_kind_is_one_line(
    tmp_path: Path, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    config = sft(tmp_path, student)
    config.data.train_files = write(tmp_path / "other.parquet", messages=PROMPT)
    assert "has no column 'input_ids'" in one_line(preflight.check_sft_config, config)


def test_install_goes_on_to_verls_own_validation(good: Any) -> None:
    calls: list[tuple] = []
    verl_config = SimpleNamespace(validate_config=lambda *args, **kwargs: calls.append((args, kwargs)))
    preflight.install_check(verl_config, "validate_config", check_config)
    once = verl_config.validate_config
    preflight.install_check(verl_config, "validate_config", check_config)
    assert verl_config.validate_config is once, "a second call does nothing"
    verl_config.validate_config(good, True, use_critic=False)
    assert calls == [((good, True), {"use_critic": False})]
