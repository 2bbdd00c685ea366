"""A fixed length that the command itself has to say (paper 5.4, `relay.fixed_command=text`): what is written, by whom,
what is trained on. The random students write fragments and whole commands of a BPE whose tokens run over borders."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay_verl.config import read_settings
from relay_verl.constraint import force_command
from relay_verl.data.schema import to_row
from relay_verl.decoder import RelayConfig, RelayDecoder
from relay_verl.engines import Generation, ScriptedEngine
from relay_verl.errors import EngineError
from relay_verl.evaluation.worker import Answerer, Rules
from relay_verl.policies import make_policy
from relay_verl.relay_config import FixedCommand
from relay_verl.tokenization import TokenBytes
from relay_verl.traces.pieces import make_pieces
from relay_verl.traces.records import ResponseRecord
from relay_verl.types import CallOutcome, RelayStatus, RelayTrajectory, Segment
from tests.helpers.generators import ChatTokenizer
from tests.helpers.tokenizers import COMMAND, ByteTokenizer, bpe, bpe_ids, check_stripped
from tests.unit.core.test_invariants import Tape, World, worlds

TOKENIZER = ByteTokenizer()
EOS = TOKENIZER.eos_token_id
PROMPT = TOKENIZER.encode("Q: ")


# ---- what is kept and what is forced ----

FORCE_CASES = [
    # turn, sampled tokens, N, kept, forced bytes, why
    (b"", [b"x", b"<call>"], 20, 2, b"20</call>", "a whole opening"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b">", b"5"], 20, 6, b"20</call>", "what comes later is cut"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b">2"], 20, 6, b"0</call>", "the completing token begins the number"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b">2"], 2, 6, b"</call>", "it holds the number"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b">2"], 5, 5, b">5</call>", "it holds another number"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b">."], 20, 5, b">20</call>", "it holds other text"),
    (b"", [b"<", b"c", b"a", b"l", b"l", b"><"], 20, 5, b">20</call>", "the next opening's beginning"),
    (b"so<ca", [b"l", b"l", b">", b"x"], 20, 3, b"20</call>", "the opening began in an earlier piece"),
    (b"", [b"x<call>"], 7, 1, b"7</call>", "a token with text in front of it"),
    (b"<call>5</call>", [b"x", b"<call>"], 7, 2, b"7</call>", "a command before it is not touched"),
]


@pytest.mark.parametrize(
    ("turn", "pieces", "number", "kept", "forced", "why"), FORCE_CASES, ids=[c[-1] for c in FORCE_CASES]
)
def test_what_is_kept_and_forced(
    turn: bytes, pieces: list[bytes], number: int, kept: int, forced: bytes, why: str
) -> None:
    tokens = TokenBytes(bpe())
    result = force_command(turn, bpe_ids(*pieces), number, tokens)
    assert result is not None, why
    assert (result[0], tokens.join(result[1])) == (kept, forced), why


NOT_FORCED = [
    (b"", [b"x", b"<", b"c"], "an opening that is not complete"),
    (b"", [b"</call>"], "a closing"),
    (b"<call>", [b"5", b"</call>"], "an opening that was there before"),
    (b"", [], "nothing"),
]


@pytest.mark.parametrize(("turn", "pieces", "why"), NOT_FORCED, ids=[c[-1] for c in NOT_FORCED])
def test_what_is_not_a_new_opening(turn: bytes, pieces: list[bytes], why: str) -> None:
    assert force_command(turn, bpe_ids(*pieces), 20, TokenBytes(bpe())) is None, why


# ---- one response ----


def relay(
    student: list, teacher: list | None, policy: str = "fixed_2", **values: Any
) -> tuple[RelayTrajectory, RelayDecoder]:
    limits = {"max_response_tokens": 200, "max_calls": None, "max_tokens_per_call": 50, "fixed_command": "text"}
    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, student),
        None if teacher is None else ScriptedEngine(TOKENIZER, teacher),
        TOKENIZER,
        RelayConfig(**{**limits, **values}),
    )
    return asyncio.run(decoder.run(PROMPT, policy=make_policy(policy))), decoder


def write(trajectory: RelayTrajectory) -> str:
    """The response with its writers: 'student [forced] {teacher}', '$' for the EOS."""
    text, signs = "", {(True, False): "{}", (False, True): "[]", (False, False): ("", "")}
    for segment in trajectory.segments:
        marks = segment.is_forced or [False] * len(segment.token_ids)
        for token_id, mark in zip(segment.token_ids, marks, strict=True):
            opening, closing = signs[segment.source == "teacher", mark]
            text += f"{opening}{'$' if token_id == EOS else chr(token_id)}{closing}"
    return text.replace("][", "").replace("}{", "")


SCRIPTS = [
    # student, teacher, config, response, outcomes, why
    (["a<call>", "b"], ["xy"], {}, "a<call>[2</call>]{xy}b$", ["served"], "the number is not the student's"),
    (["a<call>9</call>b"], ["xy"], {}, "a<call>[2</call>]{xy}9</call>b$", ["served", "malformed"],
     "a script that continues by itself"),
    (["hi"], ["xy"], {}, "hi$", [], "no call"),
    (["a</call>b"], ["xy"], {}, "a</call>b$", ["malformed"], "a closing alone opens nothing"),
    (["a<call>", "<call>", "b"], ["xyzw"], {}, "a<call>[2</call>]{xy}<call>[2</call>]{zw}b$", ["served", "served"],
     "one call right after the other"),
    (["a<call>", "<call>9</call>b"], ["xyzw"], {"max_calls": 1}, "a<call>[2</call>]{xy}<call>9</call>b$",
     ["served", "over_limit"], "what would not be served is not constrained"),
    (["a<call>", "b"], None, {}, "a<call>b$", [], "nor where there is no teacher"),
    (["a<call>", "b"], [EngineError("down")], {}, "a<call>[2</call>]b$", ["failed"], "a failed call"),
    (["a<call>b"], ["xy"], {"max_response_tokens": 10}, "a<call>[2</]", [], "no room for the whole command"),
    (["a<call>b"], ["xy"], {"max_response_tokens": 7}, "a<call>", [], "none for its beginning"),
    (["a<call>b"], ["xy"], {"max_response_tokens": 15}, "a<call>[2</call>]", None, "none for the teacher"),
    (["a<call>b"], ["xy"], {"max_response_tokens": 16}, "a<call>[2</call>]{x}", ["served"], "room for one token"),
    (["a<call>", "b"], ["xyzw"], {"max_tokens_per_call": 1}, "a<call>[2</call>]{x}b$", ["served"], "the cap"),
    (["a<call>", "b"], ["xy"], {"fixed_command": "delivered"}, "a<call>b$", [],
     "the release: only what is delivered is fixed"),
    (["a<call>9</call>", "b"], ["xy"], {"fixed_command": "delivered"}, "a<call>9</call>{xy}b$", ["served"],
     "the release: the student writes any number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("student", "teacher", "values", "response", "outcomes", "why"), SCRIPTS, ids=[case[-1] for case in SCRIPTS]
)
def test_scripts(
    student: list, teacher: list | None, values: dict, response: str, outcomes: list[str] | None, why: str
) -> None:
    trajectory, _ = relay(student, teacher, **values)
    assert write(trajectory) == response, why
    assert trajectory.status is RelayStatus.COMPLETED
    if outcomes is not None:
        assert [str(call.outcome) for call in trajectory.calls] == outcomes, why


def test_the_policy_learned_is_not_constrained() -> None:
    trajectory, _ = relay(["a<call>1</call>", "b"], ["xy"], policy="learned")
    assert write(trajectory) == "a<call>1</call>{x}b$"


def test_what_each_model_is_asked() -> None:
    """The student stops at the opening; it reads the forced command next; the teacher reads neither."""
    seen: list[tuple[str, str, tuple[str, ...]]] = []

    class Engine:
        def __init__(self, who: str, texts: list[str]):
            self.who, self.texts = who, texts

        async def generate(self, prompt_ids: list[int], *, max_tokens: int, stop: Any = (), **_: Any) -> Generation:
            seen.append((self.who, TOKENIZER.decode(prompt_ids), tuple(stop)))
            ids = TOKENIZER.encode(self.texts.pop(0))[:max_tokens]
            return Generation(ids if ids else [EOS], None, "stop" if ids else "eos")

    limits = RelayConfig(200, None, 50, fixed_command="text")
    decoder = RelayDecoder(Engine("s", ["a<call>", "b<call>", ""]), Engine("t", ["xy", "zw"]), TOKENIZER, limits)
    asyncio.run(decoder.run(PROMPT, policy=make_policy("fixed_2")))
    assert seen == [
        ("s", "Q: ", ("<call>",)),
        ("t", "Q: a", ()),
        ("s", "Q: a<call>2</call>xy", ("<call>",)),
        ("t", "Q: axyb", ()),
        ("s", "Q: a<call>2</call>xyb<call>2</call>zw", ("<call>",)),
    ]


def test_masks_and_log_probabilities_of_the_worked_example() -> None:
    trajectory, _ = relay(["a<call>", "b"], ["xy"])
    num_sampled, num_forced = len("a<call>"), len("2</call>")
    assert trajectory.response_mask == [1] * num_sampled + [0] * num_forced + [0] * 2 + [1] * 2
    assert trajectory.sampled_mask == [1] * num_sampled + [0] * num_forced + [1] * 2 + [1] * 2, "the release's loss"
    assert trajectory.logprobs == [-0.5] * num_sampled + [0.0] * num_forced + [0.0] * 2 + [-0.5] * 2
    assert [segment.num_forced_tokens for segment in trajectory.segments] == [num_forced, 0, 0]
    assert trajectory.call_ratio == 2 / (num_sampled + num_forced + 2 + 2), "a forced token is not the teacher's"
    assert [segment.source for segment in trajectory.segments] == ["student", "teacher", "student"]


def test_a_failing_teacher_is_asked_a_bounded_number_of_times_without_a_limit_of_calls() -> None:
    for policy, command in (("fixed_2", "<call>"), ("learned", "<call>2</call>")):
        errors = [EngineError(str(i)) for i in range(9)]
        trajectory, decoder = relay([command] * 9, errors, policy=policy, max_failed_calls=3)
        assert len(decoder.teacher.requests) == trajectory.num_failed_calls == 3  # type: ignore[union-attr]
        assert trajectory.status is RelayStatus.COMPLETED


def test_without_a_limit_every_call_is_served() -> None:
    trajectory, _ = relay(["<call>2</call>"] * 9, ["xy" * 9], policy="learned")
    assert trajectory.num_calls == 9


async def test_stream_yields_what_is_forced_as_a_piece_of_its_own() -> None:
    decoder = RelayDecoder(
        ScriptedEngine(TOKENIZER, ["a<call>", "b"]),
        ScriptedEngine(TOKENIZER, ["xy"]),
        TOKENIZER,
        RelayConfig(200, None, 50, fixed_command="text"),
    )
    pieces = [piece async for piece in decoder.stream(PROMPT, policy=make_policy("fixed_2"))]
    assert [(p.source, TOKENIZER.decode(p.token_ids), p.num_forced_tokens) for p in pieces] == [
        ("student", "a<call>", 0),
        ("student", "2</call>", 8),
        ("teacher", "xy", 0),
        ("student", "b", 0),
    ]


def test_a_bad_value_names_its_field() -> None:
    for value in ("written", None):
        with pytest.raises(ValueError, match=r"^fixed_command: .* text, delivered"):
            RelayConfig(10, 1, 1, fixed_command=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_failed_calls: 0"):
        RelayConfig(10, None, 1, max_failed_calls=0)


WAYS = [("text", "7*8=<call>2</call>56, so"), ("delivered", "7*8=<call>9</call>56, so")]


@pytest.mark.parametrize(("fixed_command", "text"), WAYS)
def test_an_evaluation_fixes_what_its_recipe_says(fixed_command: str, text: str) -> None:
    """`relay-verl eval --policy fixed_2`, and how the page shows it: the forced part belongs to its command."""
    relay = read_settings({"teacher": {"path": "x"}, "fixed_command": fixed_command})
    rules = Rules("c", "fixed_2", relay, max_tokens=200, max_context=None, template={}, seed=0)
    script = ["7*8=<call>", ", so"] if fixed_command == "text" else ["7*8=<call>9</call>", ", so"]
    answerer = Answerer(ScriptedEngine(TOKENIZER, script), ScriptedEngine(TOKENIZER, ["56"]), ChatTokenizer(), rules)
    row = to_row(data_source="tiny/mul", question="7*8?", ground_truth="56", id="q")
    query = {"row": row, "sample": 0, "sampling": {"temperature": 0.0}}
    record = ResponseRecord(**asyncio.run(answerer.process(query)))
    assert record.text.startswith(text)
    assert (record.num_calls, record.num_teacher_tokens) == (1, 2)
    command = "<call>2</call>" if fixed_command == "text" else "<call>9</call>"
    calls = [(piece["text"], piece["note"]) for piece in make_pieces(record) if piece["kind"] == "call"]
    assert calls == [(command, "2 of 2")]


# ---- invariants over random worlds ----


def write_all(world: World, number: int, fixed_command: FixedCommand = "text") -> tuple[RelayTrajectory, list[Segment]]:
    """One response under `fixed_N`, and its pieces; `world.log` tells what the engines were asked."""
    world.log, pieces = [], []
    config = replace(world.config, fixed_command=fixed_command, max_calls=None)
    student = Tape("student", world.student, world.log, world.tokenizer, world.overrun)
    teacher = Tape("teacher", world.teacher, world.log, world.tokenizer)
    stream = RelayDecoder(student, teacher, bpe(), config).stream(world.prompt, policy=make_policy(f"fixed_{number}"))

    async def collect() -> None:
        async for piece in stream:
            pieces.append(piece)

    asyncio.run(collect())
    return stream.trajectory(), pieces


NUMBERS = st.sampled_from([2, 5, 20, 100])


@settings(max_examples=150)
@given(worlds("bpe"), NUMBERS)
def test_every_command_says_the_number_and_nothing_else(world: World, number: int) -> None:
    """No command of another number is ever written while calls are served, and none is written by halves."""
    trajectory, _ = write_all(world, number)
    tokens = TokenBytes(bpe())
    turns = [tokens.join(segment.token_ids) for segment in trajectory.segments if segment.source == "student"]
    is_full = len(trajectory.response_ids) == world.config.max_response_tokens
    for index, turn in enumerate(turns):
        numbers = [int(match.group(1)) for match in COMMAND.finditer(turn)]
        assert numbers in ([], [number]), "a turn ends with its call"
        if not (is_full and index == len(turns) - 1):
            assert turn.count(b"<call>") == len(numbers), "each opening becomes a whole command"
    served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
    assert {call.num_requested for call in served} <= {number}
    assert len(served) == trajectory.num_calls


@settings(max_examples=150)
@given(worlds("bpe"), NUMBERS)
def test_the_ids_are_prefixes_of_samples_and_forced_tokens(world: World, number: int) -> None:
    """Invariants 1 and 3: what was sampled stays as sampled, what was forced is marked, the rest is the teacher's."""
    trajectory, pieces = write_all(world, number)
    produced = [asked.produced for asked in world.log]
    for piece in pieces:
        if piece.is_forced:
            assert all(piece.is_forced)
            assert piece.logprobs == [0.0] * len(piece.token_ids)
            continue
        while produced[0].token_ids[: len(piece.token_ids)] != piece.token_ids:
            dropped = produced.pop(0)  # its first token already broke the constraint: nothing of it was kept
            assert not any(p.token_ids == dropped.token_ids for p in pieces)
        assert piece.logprobs == (produced.pop(0).logprobs or [])[: len(piece.token_ids)]
    assert trajectory.response_ids == [i for piece in pieces for i in piece.token_ids]
    assert trajectory.response_ids == [i for segment in trajectory.segments for i in segment.token_ids]
    expected = [int(piece.source == "student" and not piece.is_forced) for piece in pieces for _ in piece.token_ids]
    assert trajectory.response_mask == expected
    assert [int(logprob != 0.0) for logprob in trajectory.logprobs or []] == expected
    assert len(trajectory.response_ids) <= world.config.max_response_tokens
    assert all(a.source != b.source for a, b in zip(trajectory.segments, trajectory.segments[1:], strict=False))
    num_teacher = sum(len(piece.token_ids) for piece in pieces if piece.source == "teacher")
    assert trajectory.call_ratio == (num_teacher / len(trajectory.response_ids) if trajectory.response_ids else 0.0)


@settings(max_examples=150)
@given(worlds("bpe"), NUMBERS)
def test_what_each_model_reads(world: World, number: int) -> None:
    """Invariant 2 under the constraint."""
    _, pieces = write_all(world, number)
    tokens = TokenBytes(bpe())
    context = list(world.prompt)
    own: list[int] = []  # the student's current turn
    teachers = list(world.prompt)
    log = iter(world.log)
    asked = next(log, None)
    for piece in pieces:
        if not piece.is_forced:
            assert asked is not None
            if asked.who == "student":
                assert asked.context == context, "the prompt and all segments, forced tokens included"
            else:
                check_stripped(own, asked.context[len(teachers) :], tokens)
                assert asked.context[: len(teachers)] == teachers
                teachers = asked.context + piece.token_ids
                own = []
            if asked.who == piece.source:
                asked = next(log, None)
        elif asked is not None and asked.who == "student" and asked.context == context:
            asked = next(log, None)  # a sample of which nothing was kept
        context += piece.token_ids
        if piece.source == "student":
            own += piece.token_ids


@given(worlds("bpe"), NUMBERS)
def test_the_releases_way_forces_no_token(world: World, number: int) -> None:
    """`delivered`: all ids are samples, and every call asks for N whatever the student wrote."""
    trajectory, pieces = write_all(world, number, "delivered")
    assert all(segment.is_forced is None for segment in trajectory.segments)
    assert trajectory.sampled_mask == [1] * len(trajectory.response_ids)
    assert trajectory.response_mask == [int(piece.source == "student") for piece in pieces for _ in piece.token_ids]
    served = [call for call in trajectory.calls if call.outcome is CallOutcome.SERVED]
    assert {call.num_requested for call in served} <= {number}


def test_the_worlds_are_not_idle() -> None:
    """Enough of the random responses have forced commands, several of them, and tokens that the constraint drops."""
    counts = {"forced": 0, "several": 0, "dropped": 0, "straddling": 0}
    tokens = TokenBytes(bpe())

    @settings(max_examples=150)
    @given(worlds("bpe"), NUMBERS)
    def look(world: World, number: int) -> None:
        trajectory, pieces = write_all(world, number)
        forced = [tokens.join(piece.token_ids) for piece in pieces if piece.is_forced]
        counts["forced"] += bool(forced)
        counts["several"] += trajectory.num_calls >= 2
        counts["dropped"] += any(text.startswith((b">", b"<", b"x")) for text in forced)
        counts["straddling"] += any(not text.startswith(f"{number}".encode()) for text in forced)

    look()
    assert counts["forced"] >= 60, counts
    assert counts["several"] >= 20, counts
    assert counts["dropped"] >= 3, counts
    assert counts["straddling"] >= 5, counts
