"""The call warm-up (paper 3.1): the law of lengths and positions, and that a response's own ids survive."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.data.warmup import draw_calls, draw_num_tokens, insert_calls, length_law
from relay_verl.protocol import find_calls


class ByteTokenizer:
    """One id a byte, so that every id below 256 is a piece of a command."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens, "a command is plain text inside a response"
        return list(text.encode())


TOKENIZER = ByteTokenizer()
OWN = 1000  # ids from here on are the response's own


def split(ids: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """The response's own ids, and each command as (own ids before it, n)."""
    text = "".join(chr(i) if i < 256 else "\N{REPLACEMENT CHARACTER}" for i in ids)
    commands = []
    for call in find_calls(text):
        commands.append((text.count("\N{REPLACEMENT CHARACTER}", 0, call.start), call.num_tokens))
    return [i for i in ids if i >= OWN], commands


def chi_square(counts: Counter[int], probabilities: dict[int, float]) -> float:
    assert set(counts) <= set(probabilities)
    total = sum(counts.values())
    return sum((counts[k] - total * p) ** 2 / (total * p) for k, p in probabilities.items())


def p_value(statistic: float, degrees: int) -> float:
    """How likely a chi-square this large is."""
    return float(torch.special.gammaincc(torch.tensor(degrees / 2), torch.tensor(statistic / 2)))


def law_of_lengths(max_exponent: int) -> dict[int, float]:
    lengths = [digit * 10**exponent for digit in range(1, 10) for exponent in range(max_exponent + 1)]
    assert len(set(lengths)) == len(lengths)  # d * 10^k is a different number for each (d, k)
    return dict.fromkeys(lengths, 1 / len(lengths))


@pytest.mark.parametrize(
    ("max_exponent", "critical"),  # 99.9% quantile of chi-square with 9 * (max_exponent + 1) - 1 degrees of freedom
    [(0, 26.125), (1, 40.790), (3, 66.619)],
)
def test_lengths_follow_the_law_of_the_paper(max_exponent: int, critical: float) -> None:
    rng = np.random.default_rng(0)
    counts = Counter(draw_num_tokens(rng, max_exponent) for _ in range(20_000))
    assert chi_square(counts, law_of_lengths(max_exponent)) < critical


def test_chi_square_tells_another_law_apart() -> None:
    """Lengths uniform in 1..9999, the likely misreading, fail at once."""
    rng = np.random.default_rng(0)
    nearest = [min(law_of_lengths(3), key=lambda n: abs(n - x)) for x in rng.integers(1, 10_000, size=2000)]
    assert chi_square(Counter(nearest), law_of_lengths(3)) > 66.619


def test_default_is_the_paper_s_exponent() -> None:
    rng = np.random.default_rng(0)
    drawn = {draw_num_tokens(rng) for _ in range(2000)}
    assert drawn == set(law_of_lengths(3))


@pytest.mark.parametrize("num_calls", [1, 3])
def test_positions_are_uniform(num_calls: int) -> None:
    """Each of 10 positions, the last own id not excepted, holds a command equally often."""
    rng = np.random.default_rng(1)
    ids = list(range(OWN, OWN + 10))
    counts: Counter[int] = Counter()
    for _ in range(4000):
        _, commands = split(insert_calls(ids, TOKENIZER, rng, num_calls=num_calls))
        counts.update(position for position, _ in commands)
    assert sum(counts.values()) == 4000 * num_calls
    # 99.9% quantile with 9 degrees of freedom; draws without replacement vary less, so the bound holds for 3 too
    assert chi_square(counts, dict.fromkeys(range(10), 0.1)) < 27.877


@pytest.mark.parametrize(
    ("length", "num_calls", "max_exponent"),
    [(6, 1, 3), (50, 1, 1), (50, 3, 3)],  # nearly all clipped; some; with siblings
)
def test_clipped_lengths_follow_the_exact_law(length: int, num_calls: int, max_exponent: int) -> None:
    """Over all positions at once: a position is uniform, and given the position the length has `length_law`."""
    rng = np.random.default_rng(4)
    counts: Counter[int] = Counter()
    for _ in range(12_000):
        calls = draw_calls(length, rng, num_calls=num_calls, max_exponent=max_exponent)
        chosen = calls[int(rng.integers(num_calls))]  # one a sample, as the positions of one sample are not independent
        counts[chosen.num_tokens] += 1
    expected: dict[int, float] = {}
    for position in range(length):
        for number, share in length_law(max_exponent, length - position).items():
            expected[number] = expected.get(number, 0.0) + float(share) / length
    assert sum(expected.values()) == pytest.approx(1.0)
    assert p_value(chi_square(counts, expected), len(expected) - 1) > 0.001


def test_the_exact_law_tells_lengths_apart_that_are_not_clipped() -> None:
    rng = np.random.default_rng(4)
    counts = Counter(min(50, draw_num_tokens(rng, 1)) for _ in range(2000))
    expected = {n: float(share) for n, share in length_law(1, 30).items()}
    counts = Counter({n: counts[n] for n in expected})
    assert p_value(chi_square(counts, expected), len(expected) - 1) < 1e-6


def test_unclipped_law_is_the_paper_s() -> None:
    assert {n: float(share) for n, share in length_law(3).items()} == pytest.approx(law_of_lengths(3))


def test_length_is_clipped_to_the_ids_that_are_left() -> None:
    rng = np.random.default_rng(2)
    ids = list(range(OWN, OWN + 6))
    seen: Counter[tuple[int, int]] = Counter()
    for _ in range(2000):
        _, [(position, num_tokens)] = split(insert_calls(ids, TOKENIZER, rng, num_calls=1, max_exponent=3))
        assert 1 <= num_tokens <= 6 - position
        seen[position, num_tokens] += 1
    assert all(seen[position, 6 - position] > 0 for position in range(6))
    # with one id left every draw becomes 1; with six left, lengths 1 to 5 stay as drawn
    assert {n for position, n in seen if position == 5} == {1}
    assert {n for position, n in seen if position == 0} == {1, 2, 3, 4, 5, 6}


def test_other_commands_do_not_count_as_ids_left() -> None:
    """Both commands of a two-id response see original ids alone: 2 left, then 1."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        _, commands = split(insert_calls([OWN, OWN + 1], TOKENIZER, rng, num_calls=2, max_exponent=3))
        assert [position for position, _ in commands] == [0, 1]
        assert commands[0][1] in (1, 2)
        assert commands[1][1] == 1


@settings(deadline=None)
@given(length=st.integers(0, 40), data=st.data(), max_exponent=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_taking_the_commands_out_gives_the_original(
    length: int, data: st.DataObject, max_exponent: int, seed: int
) -> None:
    num_calls = data.draw(st.integers(0, min(5, length)))
    ids = data.draw(st.lists(st.integers(OWN, OWN + 5), min_size=length, max_size=length))
    before = list(ids)
    result = insert_calls(ids, TOKENIZER, np.random.default_rng(seed), num_calls=num_calls, max_exponent=max_exponent)
    own, commands = split(result)
    assert own == before == ids, "the ids are kept, and the caller's list is not touched"
    positions = [position for position, _ in commands]
    assert len(set(positions)) == num_calls
    assert all(0 <= p < length for p in positions)
    assert all(1 <= n <= length - p for p, n in commands)


def test_a_fixed_number_is_said_everywhere_and_not_clipped() -> None:
    """5.4: decoding does not clip it either, so a command near the end looks like any other."""
    rng = np.random.default_rng(5)
    for num_calls in (0, 1, 3):
        calls = draw_calls(30, rng, num_calls=num_calls, written_length=20)
        assert [(call.num_drawn, call.num_tokens) for call in calls] == [(20, 20)] * num_calls
        assert len({call.position for call in calls}) == num_calls
    assert length_law(3, 5, written_length=20) == {20: 1}


def test_places_of_commands_do_not_depend_on_what_they_say() -> None:
    drawn = [draw_calls(50, np.random.default_rng(6), num_calls=3, written_length=n) for n in (None, 20, 500)]
    assert len({tuple(call.position for call in calls) for calls in drawn}) == 1


def test_same_seed_gives_same_result() -> None:
    first, second = (insert_calls([OWN] * 30, TOKENIZER, np.random.default_rng(7), num_calls=3) for _ in range(2))
    assert first == second


def test_nothing_in_gives_nothing() -> None:
    assert insert_calls([], TOKENIZER, np.random.default_rng(0), num_calls=0) == []


@pytest.mark.parametrize(
    ("ids", "arguments", "named"),
    [
        ([OWN], {"num_calls": -1}, "num_calls"),
        ([OWN], {"num_calls": 2}, "num_calls"),  # two commands, one position
        ([], {"num_calls": 1}, "num_calls"),
        ([OWN], {"num_calls": 1, "max_exponent": -1}, "max_exponent"),
        ([], {"num_calls": 0, "max_exponent": -1}, "max_exponent"),  # wrong even where it is not used
    ],
)
def test_bad_values_are_named(ids: list[int], arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        insert_calls(ids, TOKENIZER, np.random.default_rng(0), **arguments)


def test_draw_names_a_bad_exponent() -> None:
    with pytest.raises(ValueError, match="max_exponent"):
        draw_num_tokens(np.random.default_rng(0), -1)
