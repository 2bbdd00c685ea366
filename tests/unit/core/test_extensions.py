"""Names of policies, rewards and the like of other packages: what is loaded, and what is said where that fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay_verl import extensions
from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.extensions import Registry
from relay_verl.policies import make_policy, policy_words
from relay_verl.policy_base import COUNT, Policy
from relay_verl.protocol import Call
from relay_verl.rewards import Reward, find_reward, rewards_of
from relay_verl.trainer.metrics import SampleStats

CODE = """
from relay_verl.policy_base import COUNT, Policy
from relay_verl.rewards import Reward

class Capped(Policy):
    is_trainable, number = True, COUNT
    def __init__(self, limit): self.limit = limit
    @classmethod
    def make(cls, number, seed): return cls(int(number))
    def num_tokens(self, call): return min(call.num_tokens, self.limit)

class Untrained(Policy):
    words = "my own baseline"

class Draws(Policy):
    is_trainable, is_stateless = True, False
    def __init__(self, seed): self.seed = seed
    @classmethod
    def make(cls, number, seed): return cls(seed)

def half(samples, options): return [sample.is_correct / 2 for sample in samples]
def one(samples, options): return [1.0]
def endless(samples, options): return [float("nan")] * len(samples)
def no_reward(samples): return []
grouped = Reward(half, needs_groups=True)
answer = 42
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the module path, with two modules of another package; entry points are read anew."""
    (tmp_path / "their_code.py").write_text(CODE)
    (tmp_path / "their_broken.py").write_text("import a_module_that_is_missing")
    (tmp_path / "their_bug.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    extensions._points.cache_clear()
    yield tmp_path
    extensions._points.cache_clear()


def publish(folder: Path, package: str, text: str) -> None:
    """Write the metadata that an installed package has, with these entry points."""
    metadata = folder / f"{package}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(text)


def refusal(settings: dict) -> str:
    with pytest.raises(UserError) as error:
        read_settings({"teacher": {"path": "x"}, **settings})
    assert "\n" not in str(error.value)
    return str(error.value)


BAD = [
    # name, texts of the message, why
    ("no_such_package.code:Capped", ["there is no module 'no_such_package'", "PYTHONPATH"], "not installed"),
    ("their_code.deeper:Capped", ["there is no module 'their_code.deeper'"], "not a package"),
    ("their_broken:Capped", ["importing their_broken fails", "a_module_that_is_missing"], "what it imports is missing"),
    ("their_bug:Capped", ["importing their_bug fails", "ZeroDivisionError"], "it fails as it is imported"),
    ("their_code:Caped_3", ["their_code has no Caped", "did you mean 'Capped'"], "a typing error"),
    ("their_code:answer", ["is of type int", "expected a subclass of"], "of another kind"),
    ("their_code:half", ["is of type function"], "a function is not a policy"),
    ("their_code:Reward", ["is the class Reward"], "a class, but not a policy"),
    ("their_code:", ["expected one of learned", "pkg.module:Name"], "no name"),
    (":Capped", ["pkg.module:Name"], "no module"),
    ("their code:Capped", ["pkg.module:Name"], "not a module's name"),
    ("their_code:Capped", ["'their_code:Capped_20'"], "its number is missing"),
    ("their_code:Capped_0", ["'their_code:Capped_20'"], "not a number of tokens"),
    ("their_code:Untrained", ["training takes learned, teacher_free, fixed_N"], "it is not trainable"),
    ("lerned", ["learned, teacher_free", "fixed_N (such as fixed_20)", "pkg.module:Name", "mean 'learned'"], "unknown"),
]


@pytest.mark.parametrize(("name", "texts", "why"), BAD)
def test_a_policy_that_cannot_be_loaded(package: Path, name: str, texts: list[str], why: str) -> None:
    message = refusal({"policy": name})
    assert message.startswith(f"relay.policy: {name!r}: "), why
    for text in texts:
        assert text in message, why


def test_a_policy_of_another_package(package: Path) -> None:
    settings = read_settings({"policy": "their_code:Capped_3", "teacher": {"path": "x"}})
    assert settings.needs_teacher
    assert make_policy(settings.policy).num_tokens(Call(0, 14, 7)) == 3
    assert policy_words("their_code:Untrained") == "my own baseline"
    assert policy_words("gone_since:Draws") == "Draws", "results outlive the package"
    assert make_policy("their_code:Draws", 5).seed == 5  # type: ignore[attr-defined]


def test_an_entry_point_is_a_name_like_ours(package: Path) -> None:
    publish(package, "theirs", "[relay_verl.policies]\ncapped = their_code:Capped\nown_base = their_code:Untrained\n")
    assert make_policy("capped_3").num_tokens(Call(0, 14, 7)) == 3
    assert type(make_policy("own_base")).__name__ == "Untrained"
    assert "learned, teacher_free, student_alone, teacher_alone, capped, own_base" in refusal({"policy": "x"})
    assert "did you mean 'own_base'" in refusal({"policy": "own_bse"})
    assert make_policy("fixed_20").fixed_length() == 20


def test_a_name_that_two_packages_give(package: Path) -> None:
    publish(package, "theirs", "[relay_verl.policies]\nown = their_code:Untrained\nlearned = their_code:Untrained\n")
    publish(package, "others", "[relay_verl.policies]\nown = their_code:Draws\n")
    both = refusal({"policy": "own"})
    assert "the package theirs" in both
    assert "the package others" in both
    ours = refusal({"policy": "learned"})
    assert "relay_verl and by the package theirs" in ours
    assert "their_code:Untrained" in ours, "how to name it"


def test_an_entry_point_that_leads_nowhere(package: Path) -> None:
    publish(package, "theirs", "[relay_verl.rewards]\ngone = their_code:Gone\nplain = their_code:answer\n")
    gone = refusal({"reward": {"kind": "gone"}})
    assert gone.startswith("relay.reward.kind: 'gone': ")
    assert "the package theirs" in gone
    assert "their_code has no Gone" in gone
    assert "is of type int" in refusal({"reward": {"kind": "plain"}})


GROUP = [SampleStats("completed", is_correct=right, num_tokens=4) for right in (True, False)]


def test_a_reward_of_another_package(package: Path) -> None:
    options = read_settings({"reward": {"kind": "their_code:half"}, "teacher": {"path": "x"}}).reward
    assert rewards_of(GROUP, options) == [0.5, 0.0]
    assert not find_reward("their_code:half").needs_groups
    assert find_reward("their_code:grouped").needs_groups


@pytest.mark.parametrize("name", ["one", "endless"])
def test_a_reward_that_gives_no_number_a_sample(package: Path, name: str) -> None:
    options = read_settings({"reward": {"kind": f"their_code:{name}"}, "teacher": {"path": "x"}}).reward
    with pytest.raises(UserError, match=rf"relay\.reward\.kind=their_code:{name}: expected 2 finite rewards"):
        rewards_of(GROUP, options)


@pytest.mark.parametrize("name", ["no_reward", "Reward", "answer"])
def test_what_is_not_a_reward(package: Path, name: str) -> None:
    message = refusal({"reward": {"kind": f"their_code:{name}"}})
    assert "expected a function of (samples, options)" in message


def test_an_unknown_reward_lists_the_valid_ones() -> None:
    message = refusal({"reward": {"kind": "simpel"}})
    assert message.startswith("relay.reward.kind: 'simpel': ")
    for text in ("difficulty_aware, price, simple", "pkg.module:Name", "did you mean 'simple'"):
        assert text in message


def test_a_new_entry_is_all_that_a_policy_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Config, messages, words and colours follow from the class and its name in POLICIES."""
    from relay_verl.policies import POLICIES, help_text
    from relay_verl.report.colours import kind_of
    from relay_verl.traces.words import condition_words, has_both, policy_order

    class Doubled(Policy):
        is_trainable, number, summary, words = True, COUNT, "N tokens, twice", "twice {number} tokens"
        needs_teacher = False
        author = "relay"

    monkeypatch.setitem(POLICIES, "doubled", Doubled)
    assert read_settings({"policy": "doubled_5"}).needs_teacher is False
    assert "doubled_N (N tokens, twice)" in help_text()
    assert "doubled_N (such as doubled_20)" in refusal({"policy": "x"})
    assert refusal({"policy": "student_alone"}).endswith("training takes learned, teacher_free, fixed_N, doubled_N")
    assert condition_words(None, "doubled_5") == "twice 5 tokens"
    assert not has_both("doubled_5")
    assert policy_order(None, "doubled_5") == (True, "doubled", 5.0)
    assert kind_of("relay", "doubled_5") == "relay"


def test_a_registry_without_entries_of_ours_says_what_a_name_may_be() -> None:
    registry: Registry[Reward] = Registry("judge", "relay_verl.no_such_group", {}, lambda *_: None, "a judge")
    with pytest.raises(UserError, match=r"judge: 'x' is not the name of an entry point of relay_verl\.no_such_group"):
        registry.find("x")
