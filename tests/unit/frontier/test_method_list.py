"""Methods and students as data: what is wrong is named by its key."""

from pathlib import Path

import pytest

from relay_verl.frontier.method_list import parse_methods, read_methods
from relay_verl.frontier.players import Players, parse_endpoint_models, parse_students
from relay_verl.policies import POLICIES
from tests.helpers.errors import names, one_line

ALONE = "{name: s, policy: student_alone}, {name: t, policy: teacher_alone}"

BAD = [
    # the list, the key, what the message names
    ("[]", "m.yaml", "methods"),
    ("[a]", "m.yaml: methods.0", "a"),
    ("[{name: a, policy: nope}]", "m.yaml: methods.0.policy", "nope", "learned", "query_router_P"),
    ("[{name: a, policy: fixed}]", "m.yaml: methods.0.policy", "fixed_20"),
    ("[{name: '!', policy: learned}]", "m.yaml: methods.0.name", "!"),
    ("[{name: a, policy: learned}, {name: A, policy: fixed_2}]", "m.yaml: methods.1.name", "methods.0"),
    ("[{name: a, policy: learned, studnet: x}]", "m.yaml: methods.0.studnet", "student"),
    ("[{name: a, policy: learned, options: {budget: 3}}]", "m.yaml: methods.0.options", "budget", "max_teacher_tokens"),
    ("[{name: a, policy: learned, options: {max_teacher_tokens: -1}}]", "m.yaml: methods.0.options", "-1"),
    ("[{name: a, policy: query_router_0.5}]", "m.yaml: methods.0.policy", "student_alone", "teacher_alone"),
    ("[{name: a, policy: query_router_2}]", "m.yaml: methods.0.policy", "query_router_2"),
    (f"[{ALONE}, {{name: a, policy: query_router_0.5, student: x}}]", "m.yaml: methods.2.policy", "same student"),
]


@pytest.mark.parametrize(("methods", "key", "values"), [(*case[:2], case[2:]) for case in BAD])
def test_a_bad_list_is_refused_by_its_key(methods: str, key: str, values: tuple[str, ...]) -> None:
    assert names(one_line(parse_methods, f"methods: {methods}", "m.yaml"), key, *values)


def test_a_file_that_is_not_there_or_not_yaml_is_named(tmp_path: Path) -> None:
    assert names(one_line(read_methods, tmp_path / "none.yaml"), tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("methods: {")
    assert names(one_line(read_methods, tmp_path / "bad.yaml"), tmp_path / "bad.yaml")


def test_our_list_has_every_kind_of_policy_that_needs_no_head() -> None:
    methods = read_methods(None)
    kinds = {method.policy.split("_")[0] if method.policy[-1].isdigit() else method.policy for method in methods}
    assert {"learned", "student_alone", "teacher_alone", "fixed", "random", "router", "query"} == kinds
    assert kinds - {"query"} <= set(POLICIES)
    budgets = [method.max_teacher_tokens for method in methods if method.policy == "learned"]
    assert budgets == [0, 10, 30, 100, None]


def test_students_have_names_and_several_of_one_name_are_its_seeds() -> None:
    players = Players("t", parse_students(["base=b", "relay=r1", "relay=r2"]))
    methods = parse_methods(
        "methods: [{name: a, policy: student_alone}, {name: b, policy: learned, student: relay}]", "m"
    )
    players.check(methods)
    assert [players.students_of(method) for method in methods] == [("b",), ("r1", "r2")]


def test_a_student_without_a_method_and_a_method_without_a_student_are_refused() -> None:
    methods = parse_methods("methods: [{name: a, policy: learned, student: relay}]", "m")
    assert names(one_line(Players("t", parse_students(["rely=r"])).check, methods), "method 'a': student", "relay")
    players = Players("t", parse_students(["x=1", "relay=r"]))
    assert names(one_line(players.check, methods), "--student x", "--methods")
    assert names(one_line(parse_students, ["m", "m"]), "--student", "m")
    assert names(one_line(parse_students, []), "--student")
    assert names(one_line(parse_endpoint_models, ["x"]), "--model", "x")
