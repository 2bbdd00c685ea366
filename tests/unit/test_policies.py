"""Who calls and for how long."""

import pytest

from relay_verl.policies import POLICIES, Learned, TeacherFree, make_policy
from relay_verl.protocol import Call

POLICY_CASES = [
    # policy, allows calls, added sampling, tokens for n = 7, why
    ("learned", True, {}, 7, "n is what the student wrote"),
    ("fixed_20", True, {}, 20, "whatever the student wrote (5.4)"),
    ("teacher_free", False, {"bad_words": ["<call>", "</call>"]}, 0, "the sampler bans both strings (5.3)"),
]


@pytest.mark.parametrize(("name", "allows_calls", "sampling", "num_tokens", "why"), POLICY_CASES)
def test_policies(name: str, allows_calls: bool, sampling: dict, num_tokens: int, why: str) -> None:
    policy = make_policy(name)
    assert policy.allows_calls is allows_calls, why
    assert dict(policy.student_sampling()) == sampling, why
    assert policy.num_tokens(Call(0, 14, 7)) == num_tokens, why


def test_names() -> None:
    assert make_policy("learned") == Learned()
    assert make_policy("teacher_free") == TeacherFree()
    for name in POLICIES:
        make_policy(name)


def test_a_call_for_nothing_stays_one_under_a_fixed_length() -> None:
    assert make_policy("fixed_20").num_tokens(Call(0, 14, 0)) == 0


@pytest.mark.parametrize("name", ["", "Learned", "teacher-free", "nonsense", "fixed", "fixed_0", "fixed_-1", "fixed_x"])
def test_an_unknown_name_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match="learned, teacher_free, fixed_N") as error:
        make_policy(name)
    assert repr(name) in str(error.value)
