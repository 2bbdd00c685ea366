"""The `relay:` node: what it may hold, and what is said when it does not."""

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize
from omegaconf import OmegaConf

from relay_verl import config as config_module
from relay_verl.config import (
    FilterSettings,
    RelaySettings,
    RewardSettings,
    TeacherSettings,
    WarmupSettings,
    read_settings,
)
from relay_verl.errors import UserError

RECIPES = Path(__file__).parents[3] / "recipes"
TEACHER = {"path": "big"}


def nested(key: str, value: Any) -> dict[str, Any]:
    """A `relay:` node with a teacher and one key set, such as 'reward.kind'."""
    node: dict[str, Any] = {"teacher": dict(TEACHER)}
    *parents, last = key.split(".")
    place = node
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return node


NAN, INF = float("nan"), float("inf")
BAD_VALUES = [
    # key, value, what the line says is allowed, why
    ("max_calls", -1, "greater than or equal to 0", "negative"),
    ("max_calls", 1.5, "integer", "half a call"),
    ("max_calls", "three", "integer", "a word"),
    ("max_calls", True, "integer", "yes is not a number"),
    ("max_failed_calls", 0, "greater than or equal to 1", "a dead teacher must be met to be known"),
    ("max_failed_calls", None, "integer", "a dead teacher would cost an unbounded time"),
    ("fixed_command", "written", "'text' or 'delivered'", "unknown"),
    ("fixed_command", None, "'text' or 'delivered'", "nothing"),
    ("max_tokens_per_call", 0, "greater than or equal to 1", "calls are forbidden by max_calls"),
    ("max_tokens_per_call", -5, "greater than or equal to 1", "negative"),
    ("on_teacher_failure", "ignore", "'continue', 'drop' or 'fail'", "unknown"),
    ("on_teacher_failure", None, "'continue', 'drop' or 'fail'", "nothing"),
    ("policy", "lerned", "learned, teacher_free", "unknown"),
    ("policy", 3, "string", "a number"),
    ("train_on_teacher_tokens", "maybe", "boolean", "neither"),
    ("rollout_timeout_s", 0, "greater than 0", "no time"),
    ("rollout_timeout_s", INF, "finite", "for ever"),
    ("rollout_timeout_s", NAN, "finite", "not a number"),
    (
        "reward.kind",
        "dificulty_aware",
        "difficulty_aware, price, simple, or pkg.module:Name; did you mean 'difficulty_aware'?",
        "unknown",
    ),
    ("reward.charge", "asked", "'delivered' or 'requested'", "unknown"),
    ("reward.independence_bonus", -0.5, "greater than or equal to 0", "negative"),
    ("reward.independence_bonus", INF, "finite", "rewards would be infinite"),
    ("reward.stubbornness_penalty", -1, "greater than or equal to 0", "it is subtracted"),
    ("reward.stubbornness_penalty", INF, "finite", "rewards would be infinite"),
    ("reward.exploration", "often", "boolean", "neither"),
    ("reward", None, "dictionary", "nothing"),
    ("reward", "simple", "dictionary", "the kind in the wrong place"),
    ("teacher.path", 3, "string", "a number"),
    ("teacher.num_replicas", 0, "greater than or equal to 1", "none"),
    ("teacher.tensor_parallel_size", 0, "greater than or equal to 1", "none"),
    ("teacher.gpu_memory_utilization", 0, "greater than 0", "none"),
    ("teacher.gpu_memory_utilization", 1.5, "less than or equal to 1", "more than there is"),
    ("teacher.gpu_memory_utilization", NAN, "1", "not a number"),
    ("teacher.max_num_seqs", 0, "greater than or equal to 1", "none"),
    ("teacher.temperature", -0.1, "greater than or equal to 0", "negative"),
    ("teacher.temperature", NAN, "finite", "not a number"),
    ("teacher.temperature", INF, "finite", "uniform noise"),
    ("teacher.top_p", 0, "greater than 0", "nothing to sample from"),
    ("teacher.top_p", 1.1, "less than or equal to 1", "more than there is"),
    ("teacher.top_p", NAN, "1", "not a number"),
    ("teacher.top_k", 0, "at least 1, or -1", "nothing to sample from"),
    ("teacher.top_k", -2, "at least 1, or -1", "negative"),
    ("teacher.top_k", 1.5, "integer", "half a token"),
    ("teacher.timeout_s", 0, "greater than 0", "no time"),
    ("teacher.timeout_s", INF, "finite", "for ever"),
    ("teacher.timeout_s", "soon", "number", "a word"),
    ("teacher.start_timeout_s", -1, "greater than 0", "negative"),
    ("teacher.num_retries", -1, "greater than or equal to 0", "negative"),
    ("teacher.breaker_threshold", 0, "greater than or equal to 1", "always open"),
    ("teacher.breaker_reset_s", 0, "greater than 0", "never open"),
    ("warmup.num_samples", 0, "greater than or equal to 1", "none"),
    ("warmup.call_weights", [0, 0], "at least one weight must be above 0", "nothing can be drawn"),
    ("warmup.call_weights", [], "at least one weight must be above 0", "nothing can be drawn"),
    ("warmup.max_exponent", -1, "greater than or equal to 0", "negative"),
    ("filter.num_samples", 0, "greater than or equal to 1", "none"),
    ("filter.min_pass_rate", 1.5, "less than or equal to 1", "no query has it"),
]


@pytest.mark.parametrize(("key", "value", "allowed", "why"), BAD_VALUES, ids=[f"{k}={v}" for k, v, _, _ in BAD_VALUES])
def test_a_bad_value_is_one_line(key: str, value: Any, allowed: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(nested(key, value))
    line = str(error.value)
    assert line.startswith(f"relay.{key}: "), why
    assert repr(value) in line
    assert allowed in line
    assert "\n" not in line


UNKNOWN_KEYS = [
    # key, a key that the line lists
    ("max_call", "max_calls"),
    ("teacher.pth", "base_url"),
    ("teacher.api_key", "api_key_env"),
    ("reward.bonus", "independence_bonus"),
]


@pytest.mark.parametrize(("key", "listed"), UNKNOWN_KEYS)
def test_an_unknown_key_lists_the_known_ones(key: str, listed: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(nested(key, "sk-secret"))
    line = str(error.value)
    assert line.startswith(f"relay.{key}: unknown key; allowed: ")
    assert listed in line
    assert "\n" not in line
    assert "sk-secret" not in line, "it may be a key put in the wrong place"


def test_several_errors_are_one_line() -> None:
    with pytest.raises(UserError) as error:
        read_settings({"teacher": TEACHER, "max_calls": -1, "max_cals": 3})
    assert "relay.max_calls: -1" in str(error.value)
    assert "relay.max_cals: unknown key" in str(error.value)
    assert "\n" not in str(error.value)


NO_NODES = [
    # node, why
    ("learned", "a word"),
    (3, "a number"),
    ([1], "a list"),
    (OmegaConf.create([1]), "a list in YAML"),
]


@pytest.mark.parametrize(("node", "why"), NO_NODES)
def test_a_node_that_is_no_mapping_is_one_line(node: Any, why: str) -> None:
    with pytest.raises(UserError, match=r"^relay: ") as error:
        read_settings(node)
    assert "\n" not in str(error.value), why


def test_an_interpolation_that_leads_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    with pytest.raises(UserError, match="NO_SUCH_VARIABLE") as error:
        read_settings(OmegaConf.create({"teacher": {"path": "${oc.env:NO_SUCH_VARIABLE}"}}))
    assert "\n" not in str(error.value)


def test_both_a_path_and_an_endpoint() -> None:
    with pytest.raises(UserError, match=r"relay\.teacher: both path='a' and base_url='http://b/v1'"):
        read_settings({"teacher": {"path": "a", "base_url": "http://b/v1"}})


def listed(*teachers: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"teachers": list(teachers), **values}


BAD_LISTS = [
    # node, the line, why
    (listed({"path": "a"}, {"path": "b", "weight": -1}), "relay.teachers.1.weight: -1: ", "negative"),
    (listed({"path": "a", "weight": INF}), "relay.teachers.0.weight: inf: ", "infinite"),
    (listed({"path": "a"}, {"pth": "b"}), "relay.teachers.1.pth: unknown key; allowed: path, base_url", "misspelt"),
    (listed({"path": "a"}, "b"), "relay.teachers.1: 'b': ", "no mapping"),
    (listed({"path": "a", "data_sources": []}), "relay.teachers.0.data_sources: ", "answers nothing"),
    (listed({"path": "a", "data_sources": "math"}), "relay.teachers.0.data_sources: 'math': ", "a word, no list"),
    (listed({"path": "a", "name": "a b/c"}), "relay.teachers.0.name: 'a b/c': ", "no part of a metric's name"),
    (listed({"path": "a", "weight": 0}, {"path": "b", "weight": 0}),
     "relay.teachers.0.weight, relay.teachers.1.weight: 0; at least one", "no one can be drawn"),
    ({"teacher": {"path": "a", "weight": 0}}, "relay.teacher.weight: 0; at least one", "nor alone"),
    (listed({"path": "x/big"}, {"path": "y/big"}), "relay.teachers.1.name: 'big' is what relay.teachers.0 is called",
     "metrics could not tell them apart"),
    (listed({"path": "a"}, {"path": "b", "name": "a"}), "relay.teachers.1.name: 'a' is what", "also by name"),
    (listed({"path": "a"}, {}), "relay.teachers.1: no teacher given", "neither path nor endpoint"),
    (listed({"path": "a", "base_url": "http://b/v1"}), "relay.teachers.0: both path='a' and", "which one?"),
    ({"teacher": []}, "relay.teacher: []: an empty list", "no one"),
    ({"teacher": [{"path": "a"}], "teachers": [{"path": "b"}]}, "relay.teacher: a list, and ", "two lists"),
    ({"teachers": {"a": {"path": "a"}}}, "relay.teachers: ", "a mapping by name"),
    ({"teacher": {"path": "a", "tokenizer": "t"}}, "relay.teacher.tokenizer: 't' is for relay.teacher.text_bridge=true",
     "it would be ignored"),
    ({"teacher": {"base_url": "http://b/v1", "text_bridge": True}}, "relay.teacher.tokenizer: text_bridge=true needs",
     "an endpoint does not send it"),
    ({"teacher": {"path": "a", "api": "chat"}},
     "relay.teacher.api: chat is for an endpoint, relay.teacher.base_url; 'a'", "a model of ours takes ids"),
    ({"teacher": {"base_url": "http://b/v1", "api": "chat", "text_bridge": True}}, "relay.teacher.text_bridge: ",
     "two ways to pass text"),
    (listed({"base_url": "http://b/v1", "chat_prefix": "explain"}),
     "relay.teachers.0.chat_prefix: explain is for relay.teachers.0.api=chat", "it would be ignored"),
    ({"teacher": {"base_url": "http://b/v1", "chat_fallback": True}},
     "relay.teacher.chat_fallback: True is for", "it, too"),
    ({"teacher": {"base_url": "http://b/v1", "api": "messages"}}, "relay.teacher.api: 'messages': ", "another API"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "line", "why"), BAD_LISTS, ids=[why for _, _, why in BAD_LISTS])
def test_bad_teachers_are_one_line(node: dict, line: str, why: str) -> None:
    with pytest.raises(UserError) as error:
        read_settings(OmegaConf.create(node))
    assert str(error.value).startswith(line), why
    assert "\n" not in str(error.value)


def test_a_list_of_teachers() -> None:
    entries = [{"path": "x/big", "weight": 3}, {"path": "off", "weight": 0}, {"base_url": "http://b/v1", "name": "far"}]
    settings = read_settings({"teacher": {"path": "filters"}, "teachers": entries})
    assert {key: one.label for key, one in settings.active_teachers.items()} == {
        "relay.teachers.0": "big",
        "relay.teachers.2": "far",
    }, "a weight of 0 leaves it out"
    assert settings.needs_teacher
    assert read_settings(OmegaConf.create({"teacher": entries})).active_teachers == settings.active_teachers
    assert list(read_settings({"teacher": {"path": "a"}}).active_teachers) == ["relay.teacher"]


def test_work_for_one_teacher_refuses_several_and_names_the_way_out() -> None:
    with pytest.raises(UserError, match=r"^relay\.teachers: a, b, but this asks one: .*relay\.teachers=\[\]"):
        _ = read_settings(listed({"path": "a"}, {"path": "b"})).only_teacher
    assert read_settings(listed({"path": "a"}, {"path": "b", "weight": 0})).only_teacher.path == "a"
    assert read_settings({"teacher": {"path": "c"}}).only_teacher.path == "c"


LABELS = [
    # teacher, what metrics call it
    ({"path": "Qwen/Qwen3-8B"}, "Qwen3-8B"),
    ({"path": "/models/big/"}, "big"),
    ({"path": "big", "name": "b"}, "b"),
    ({"base_url": "http://b:8000/v1", "model": "org/huge"}, "huge"),
    ({"base_url": "http://b:8000/v1/"}, "b:8000"),
]


@pytest.mark.parametrize(("teacher", "label"), LABELS)
def test_what_a_teacher_is_called(teacher: dict, label: str) -> None:
    assert TeacherSettings(**teacher).label == label


NEEDS = [
    # node, needs a teacher, why
    ({}, True, "the defaults call"),
    ({"max_calls": None}, True, "without a limit"),
    ({"policy": "fixed_20"}, True, "a fixed length"),
    ({"max_calls": 0}, False, "plain GRPO"),
    ({"policy": "teacher_free"}, False, "the sampler bans commands"),
    ({"policy": "teacher_free", "max_calls": 0}, False, "both"),
]


@pytest.mark.parametrize(("node", "needs_teacher", "why"), NEEDS)
def test_who_needs_a_teacher(node: dict, needs_teacher: bool, why: str) -> None:
    assert read_settings({**node, "teacher": TEACHER}).needs_teacher is needs_teacher, why
    assert read_settings({**node, "teacher": {"base_url": "http://b/v1"}}).teacher.is_given
    if needs_teacher:
        with pytest.raises(UserError, match=r"relay\.teacher\.path .* relay\.teacher\.base_url .* relay\.max_calls=0"):
            read_settings(node)
    else:
        assert not read_settings(node).teacher.is_given


@pytest.mark.parametrize("node", [None, {}, OmegaConf.create({})])
def test_an_empty_node_lacks_a_teacher(node: Any) -> None:
    with pytest.raises(UserError, match="no teacher given"):
        read_settings(node)


def test_values_as_hydra_gives_them() -> None:
    node = OmegaConf.create({"teacher": {"path": "${other}", "timeout_s": 30}, "max_calls": 2, "other": "big"})
    del node["other"]
    root = OmegaConf.create({"relay": node, "other": "big"})
    root.relay.teacher.path = "${other}"
    settings = read_settings(root.relay)
    assert settings.teacher.path == "big"
    assert settings.teacher.timeout_s == 30.0
    assert settings.max_calls == 2


def test_settings_are_values() -> None:
    settings = read_settings({"teacher": TEACHER})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.max_calls = 9  # type: ignore[misc]
    assert settings == read_settings(OmegaConf.create({"teacher": TEACHER}))
    assert hash(settings) == hash(read_settings({"teacher": TEACHER}))


def test_decoder_config() -> None:
    settings = read_settings(
        {
            "teacher": {"path": "big", "timeout_s": 7, "temperature": 0.3, "top_p": 0.9, "top_k": 5},
            "max_calls": 2,
            "max_tokens_per_call": 64,
            "on_teacher_failure": "drop",
            "rollout_timeout_s": 90,
            "max_failed_calls": 5,
        }
    )
    limits = settings.decoder_config(128, greedy=False, vocab_size=1000)
    assert (limits.max_response_tokens, limits.max_calls, limits.max_tokens_per_call) == (128, 2, 64)
    assert (limits.on_teacher_failure, limits.teacher_timeout_s, limits.student_timeout_s) == ("drop", 7.0, 90.0)
    assert limits.teacher_sampling == {"temperature": 0.3, "top_p": 0.9, "top_k": 5}
    assert (limits.max_failed_calls, limits.fixed_command) == (5, "text")
    assert limits.vocab_size == 1000
    greedy = settings.decoder_config(128, greedy=True, vocab_size=None)
    assert greedy.teacher_sampling == {"temperature": 0.0, "top_p": 1.0, "top_k": -1}, (
        "greedy validation makes the teacher greedy too"
    )


def test_by_default_calls_have_no_limit_but_the_response() -> None:
    settings = read_settings({"teacher": TEACHER})
    assert (settings.max_calls, settings.needs_teacher) == (None, True)
    assert settings.decoder_config(128, greedy=False, vocab_size=None).max_calls is None


def test_a_fixed_length_that_no_call_could_deliver_is_refused() -> None:
    for policy, limit in (("fixed_5000", 4096), ("fixed_7", 6)):
        with pytest.raises(UserError, match=rf"^relay\.policy: {policy}: .*relay\.max_tokens_per_call={limit} "):
            read_settings({"policy": policy, "max_tokens_per_call": limit, "teacher": TEACHER})
    assert read_settings({"policy": "fixed_6", "max_tokens_per_call": 6, "teacher": TEACHER}).written_length == 6


WRITTEN = [
    # node, the number that every command says, why
    ({}, None, "the student chooses"),
    ({"policy": "fixed_20"}, 20, "the paper (5.4)"),
    ({"policy": "fixed_20", "fixed_command": "delivered"}, None, "the release fixes what is delivered"),
    ({"policy": "teacher_free"}, None, "no command at all"),
]


@pytest.mark.parametrize(("node", "number", "why"), WRITTEN)
def test_what_commands_have_to_say(node: dict, number: int | None, why: str) -> None:
    assert read_settings({**node, "teacher": TEACHER}).written_length == number, why


# ---- written once ----


def composed_base() -> dict[str, Any]:
    """The `relay:` node that every recipe starts with, composed by Hydra."""
    with initialize(None, version_base=None):
        return OmegaConf.to_container(compose(overrides=["+relay=base"]).relay, resolve=True)  # type: ignore[return-value]


def test_the_base_recipe_has_every_key_with_its_default() -> None:
    """Hydra takes `relay.x=y` without a `+` only for a key that is there."""
    base, defaults = composed_base(), json.loads(json.dumps(dataclasses.asdict(RelaySettings())))
    assert base == defaults
    assert list(base) == [f.name for f in dataclasses.fields(RelaySettings)], "in the same order"
    assert _types(base) == _types(defaults), "300 is not 300.0"
    assert read_settings({**base, "max_calls": 0}) == RelaySettings(max_calls=0)


def test_no_file_repeats_the_defaults() -> None:
    assert "relay" not in OmegaConf.load(RECIPES / "relay" / "base.yaml")


def test_an_app_that_asks_for_no_recipe_does_not_import_the_settings() -> None:
    program = (
        "import sys\n"
        "from hydra import compose, initialize\n"
        "with initialize(None, version_base=None): compose()\n"
        "print('relay_verl.config' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


def _types(value: Any) -> Any:
    return {k: _types(v) for k, v in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.parametrize("recipe", sorted(p.name for p in (RECIPES / "relay").glob("*.yaml")))
def test_every_shared_part_sets_known_keys(recipe: str) -> None:
    node = OmegaConf.load(RECIPES / "relay" / recipe).get("relay") or OmegaConf.create({})
    settings = read_settings({"teacher": TEACHER, **OmegaConf.to_container(node, resolve=True), "max_calls": 0})
    assert isinstance(settings, RelaySettings)


@pytest.mark.parametrize(
    "settings_type", [RelaySettings, TeacherSettings, RewardSettings, WarmupSettings, FilterSettings]
)
def test_every_field_has_a_docstring(settings_type: type) -> None:
    [definition] = ast.parse(inspect.getsource(settings_type)).body
    assert isinstance(definition, ast.ClassDef)
    documented = {
        field.target.id
        for field, after in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    assert documented == {f.name for f in dataclasses.fields(settings_type)}


def test_the_pure_modules_import_no_model_library() -> None:
    pure = "protocol tokenization types decoder policies rewards config engines engines.verl_server trainer.metrics"
    pure += " preflight.training"
    program = (
        "import importlib, sys\n"
        f"for name in {pure.split()!r}: importlib.import_module('relay_verl.' + name)\n"
        "print([m for m in ('torch', 'verl', 'ray', 'vllm', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
    assert config_module.__doc__
