"""Who calls and for how long. What the decoder makes of it is in test_decoder.py."""

import pytest

from relay_verl.config import read_settings
from relay_verl.errors import UserError
from relay_verl.policies import (
    POLICIES,
    Learned,
    StudentAlone,
    TeacherAlone,
    TeacherFree,
    make_policy,
    needs_student,
    needs_teacher,
)
from relay_verl.protocol import Call

BANNED = {"bad_words": ["<call>", "</call>"]}
POLICY_CASES = [
    # policy, serves commands, added sampling, tokens for n = 7, needs student, needs teacher, why
    ("learned", True, {}, 7, True, True, "n is what the student wrote"),
    ("fixed_20", True, {}, 20, True, True, "whatever the student wrote (5.4)"),
    ("teacher_free", False, BANNED, 0, True, False, "the sampler bans both strings (5.3)"),
    ("student_alone", False, {}, 0, True, False, "a command is text"),
    ("teacher_alone", False, {}, 0, False, True, "the student is never asked"),
    ("random_0.01", False, BANNED, 0, True, True, "calls come by themselves"),
    ("random_1", False, BANNED, 0, True, True, "before every token"),
]


@pytest.mark.parametrize(("name", "allows", "sampling", "num_tokens", "student", "teacher", "why"), POLICY_CASES)
def test_policies(
    name: str, allows: bool, sampling: dict, num_tokens: int, student: bool, teacher: bool, why: str
) -> None:
    policy = make_policy(name)
    assert policy.allows_calls is allows, why
    assert dict(policy.student_sampling()) == sampling, why
    assert policy.num_tokens(Call(0, 14, 7)) == num_tokens, why
    assert (needs_student(name), needs_teacher(name)) == (student, teacher), why


def test_names() -> None:
    assert make_policy("learned") == Learned()
    assert make_policy("teacher_free") == TeacherFree()
    for name, kind in POLICIES.items():
        make_policy(f"{name}_{kind.number.example}" if kind.number else name)


def test_a_call_for_nothing_stays_one_under_a_fixed_length() -> None:
    assert make_policy("fixed_20").num_tokens(Call(0, 14, 0)) == 0


def test_a_random_router_sends_its_share_of_queries_to_the_teacher() -> None:
    sent = [make_policy("router_0.3", seed) for seed in range(2000)]
    assert {type(policy) for policy in sent} == {TeacherAlone, StudentAlone}
    share = sum(policy == TeacherAlone() for policy in sent) / len(sent)
    assert abs(share - 0.3) < 0.04  # four standard errors
    assert sent[7] == make_policy("router_0.3", 7), "a query's fate depends on its seed alone"
    assert {type(make_policy("router_0", seed)) for seed in range(50)} == {StudentAlone}
    assert {type(make_policy("router_1", seed)) for seed in range(50)} == {TeacherAlone}


UNKNOWN = ["", "Learned", "teacher-free", "nonsense", "fixed", "fixed_0", "fixed_-1", "fixed_x", "random", "router_2"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match="learned, teacher_free, student_alone, teacher_alone, fixed_N") as error:
        make_policy(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["student_alone", "teacher_alone", "random_0.1", "router_0.5"])
def test_training_takes_no_baseline(name: str) -> None:
    with pytest.raises(UserError, match=r"relay\.policy: .* training takes learned, teacher_free, fixed_N"):
        read_settings({"policy": name, "teacher": {"path": "x"}})
