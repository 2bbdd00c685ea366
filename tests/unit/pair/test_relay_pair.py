"""RelayPair: texts of two models, over scripts and over two real ones whose tokens are known (chain_models)."""

import asyncio
import json
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import relay_verl
from relay_verl.checkpoints.relay_file import RelayFile, RelayLimits, RelayTemplate
from relay_verl.defer.head_folder import save_head
from relay_verl.defer.head_info import HeadInfo, HeadKind
from relay_verl.defer.heads import make_head
from relay_verl.engines import EngineError, Generation, ScriptedEngine
from relay_verl.engines.transformers_engine import TransformersEngine
from relay_verl.errors import TeacherError, UserError
from relay_verl.pair.chat_prompt import prompt_ids
from relay_verl.pair.relay_pair import RelayPair
from tests.helpers.chain_models import make_tokenizer, save_deferring, save_pair
from tests.helpers.streaming import Streaming
from tests.helpers.tokenizers import ByteTokenizer

ROOT = Path(__file__).parents[3]
TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    student, teacher = save_pair(tmp_path_factory.mktemp("pair"))
    limits = {"max_response_tokens": 40, "max_calls": 2, "max_tokens_per_call": 8}
    (student / "relay.json").write_text(json.dumps({"format": 1, "limits": limits}))
    return student, teacher


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> Iterator[RelayPair]:
    with RelayPair.load(*folders, device="cpu") as pair:
        yield pair


def scripted(student: Any, teacher: Any = None, **options: Any) -> RelayPair:
    engines = [ScriptedEngine(TOKENIZER, script, chunk=1) for script in (student, teacher or (lambda _: "xyzw"))]
    return RelayPair(*engines, TOKENIZER, **options)


# ---- two models ----


def test_texts_of_two_models(pair: RelayPair) -> None:
    one, other = pair.generate(["b", "bl"], max_tokens=12, seed=0)
    assert (one.text, one.finish_reason, one.error) == ("atttz", "stop", "")
    assert [segment.source for segment in one.trajectory.segments] == ["student", "teacher", "student"]
    assert {name: one.usage[name] for name in ("student_tokens", "teacher_tokens", "num_calls", "prompt_tokens")} == {
        "student_tokens": 6,
        "teacher_tokens": 3,
        "num_calls": 1,
        "prompt_tokens": 1,
    }
    assert (other.text, other.finish_reason) == ("l" * 12, "length")
    assert pair.relay.limits.max_calls == 2, "as the student's relay.json says"
    assert pair.max_model_len == 2048


def test_a_stream_has_the_text_of_generate(pair: RelayPair) -> None:
    stream = pair.stream("b", max_tokens=12)
    deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == "atttz"
    assert [delta.source for delta in deltas if delta.text] == ["student", *["teacher"] * 3, "student"]
    assert stream.result() == pair.generate("b", max_tokens=12)[0] or stream.result().text == "atttz"
    assert stream.result().finish_reason == "stop"


def test_policies_budgets_and_stops(pair: RelayPair) -> None:
    def text(**options: Any) -> str:
        return pair.generate("b", max_tokens=12, **options)[0].text

    assert text(show_commands=True) == "a<call>3</call>tttz"
    assert text(max_teacher_tokens=2) == "attz"
    assert text(max_calls=0) == text(max_teacher_tokens=0) == "az"
    assert text(policy="fixed_1") == "atz"
    assert text(policy="teacher_alone") == "t" * 12
    assert text(policy="student_alone") == "az"
    assert text(stop="t") == "a"
    assert text(stop=("az", "tz")) == "att"


async def test_the_async_siblings(pair: RelayPair) -> None:
    texts = await pair.agenerate(["b", "b"], max_tokens=12)
    assert [text.text for text in texts] == ["atttz"] * 2
    assert "".join([delta.text async for delta in pair.astream("b", max_tokens=12)]) == "atttz"
    assert pair.generate("b")[0].text == "atttz", "also inside another event loop, as in a notebook"


def test_without_a_teacher_commands_stay_unserved(folders: tuple[Path, Path]) -> None:
    with RelayPair.load(folders[0], device="cpu") as alone:
        assert alone.generate("b")[0].text == "az"


def test_prompts_are_questions_chats_or_ids() -> None:
    tokenizer = make_tokenizer()
    template = RelayTemplate(system="s")
    assert prompt_ids("ab", tokenizer, template) == [*b"sab"]
    assert prompt_ids([{"role": "user", "content": "a"}], tokenizer, RelayTemplate()) == [*b"a"]
    assert prompt_ids([{"role": "system", "content": "x"}], tokenizer, template) == [*b"x"]
    assert prompt_ids([1, 2], tokenizer, template) == [1, 2]
    assert prompt_ids("ab", TOKENIZER, template) == [*b"ab"], "no chat template"
    for bad in ([], "", [1, "x"], [{"content": "no role"}], [-1], 7):
        with pytest.raises(UserError, match="prompt"):
            prompt_ids(bad, TOKENIZER if bad == "" else tokenizer, RelayTemplate())  # type: ignore[arg-type]


# ---- a defer head ----


@pytest.fixture(scope="module")
def deferring(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return save_deferring(tmp_path_factory.mktemp("deferring"))


def test_a_defer_head_asks_where_its_score_is_low(deferring: tuple[Path, Path, Path]) -> None:
    student, teacher, head = deferring
    with RelayPair.load(student, teacher, defer_head=head, device="cpu") as pair:

        def text(policy: str, **options: Any) -> str:
            return pair.generate("l", policy=policy, max_tokens=6, temperature=0, **options)[0].text

        assert text("deferred") == "tltltl"
        assert text("deferred_0") == "llllll", "never asked"
        assert text("deferred_1.5") == "tttttt", "always asked"
        assert text("learned") == "llllll", "a policy of commands asks no head"
        assert text("deferred", max_teacher_tokens=1) == "tlllll"
        [result] = pair.generate("l", policy="deferred", max_tokens=6, temperature=0)
        assert (result.usage["num_calls"], result.usage["teacher_tokens"]) == (3, 3)
        assert "".join(delta.text for delta in pair.stream("l", policy="deferred", max_tokens=6)) == "tltltl"
    with RelayPair.load(student, teacher, defer_head=head, defer_tokens=2, device="cpu") as pair:
        assert pair.generate("l", policy="deferred", max_tokens=6)[0].text == "ttlttl"


def test_a_head_that_does_not_fit_is_an_error_before_a_model_loads(
    deferring: tuple[Path, Path, Path], pair: RelayPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(TransformersEngine, "load", load)
    student, teacher, head = deferring
    narrow = HeadInfo(HeadKind.COLLM, hidden_size=32)
    save_head(tmp_path / "narrow", make_head(narrow), narrow)
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (student, teacher, {"defer_head": tmp_path / "nowhere"}, r"nowhere.*defer_head\.json"),
        (student, teacher, {"defer_head": tmp_path / "narrow"}, "hidden_size: 32: the student"),
        (student, None, {"defer_head": head}, "defer_head: .*teacher"),
        (student, teacher, {"defer_head": head, "defer_tokens": 0}, "defer_tokens: .*got 0"),
        (
            "http://127.0.0.1:1/v1",
            teacher,
            {"defer_head": head, "tokenizer": student},
            "defer_head: http.*runs already",
        ),
    ]
    for one, two, options, part in cases:
        with pytest.raises(UserError, match=part):
            RelayPair.load(one, two, **options)
    with pytest.raises(UserError, match="defer head"):
        pair.generate("b", policy="deferred")


# ---- bad input ----

BAD = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_calls": -1}, "max_calls"),
    ({"max_teacher_tokens": True}, "max_teacher_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"seed": "x"}, "seed"),
    ({"policy": "nonsense"}, "policy"),
    ({"on_teacher_failure": "cry"}, "on_teacher_failure"),
    ({"max_token": 3}, "max_tokens"),
    ({"sampling": {"warmth": 1}}, "warmth"),
]


@pytest.mark.parametrize(("options", "part"), BAD, ids=[str(options) for options, _ in BAD])
def test_bad_options_are_errors_that_name_them(pair: RelayPair, options: dict, part: str) -> None:
    if "sampling" in options:
        assert part in pair.generate("b", **options)[0].error
        return
    with pytest.raises(UserError, match=part):
        pair.generate("b", **options)
    with pytest.raises(UserError, match=part):
        pair.stream("b", **options)


def test_a_prompt_that_fills_the_context_says_both_lengths(pair: RelayPair) -> None:
    with pytest.raises(UserError, match=r"3000 tokens.*2048"):
        pair.generate(["b", "x" * 3000])


def test_what_cannot_be_loaded_is_one_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    student, teacher = folders
    other = make_tokenizer([b"xyz"])
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text((teacher / "config.json").read_text())
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (tmp_path, teacher, {}, "student"),
        (student, tmp_path / "nowhere", {}, "nowhere"),
        (student, tmp_path / "other", {}, "tokenizer"),
        (student, teacher, {"engine": "llama"}, "transformers, vllm"),
        ("http://127.0.0.1:1/v1", teacher, {}, "tokenizer"),
        ("http://127.0.0.1:1/v1?key=x", teacher, {"tokenizer": student}, "key"),
    ]
    num_threads = threading.active_count()
    for one, two, options, part in cases:
        with pytest.raises(UserError, match=part):
            RelayPair.load(one, two, **options)
    with pytest.raises(EngineError, match="Connection refused"):
        RelayPair.load("http://127.0.0.1:1/v1", None, tokenizer=student)
    assert threading.active_count() <= num_threads + 1, "nothing is left behind"


# ---- failures ----


def test_a_failed_call_is_data_and_a_failed_student_an_error() -> None:
    with scripted(lambda _: "a<call>3</call>b", [EngineError("down")] * 4) as pair:
        [text] = pair.generate("q", max_tokens=40, max_calls=1)
        assert (text.text.startswith("a"), text.usage["num_failed_calls"]) == (True, 1)
        [dropped] = pair.generate("q", on_teacher_failure="drop")
        assert (dropped.text, dropped.finish_reason) == ("a", "error")
        assert "down" in dropped.error
        with pytest.raises(TeacherError, match="down"):
            pair.generate("q", on_teacher_failure="fail")
    with scripted([EngineError("broken")] * 3) as pair:
        assert "broken" in pair.generate("q")[0].error
        with pytest.raises(EngineError, match="broken"):
            list(pair.stream("q"))


class Mistaken:
    """An engine of a user's own, with a typing error in it."""

    async def generate(self, prompt_ids: list[int], **_: Any) -> Generation:
        return Generation(prompt_ids.token_ids, None, "eos")  # type: ignore[attr-defined]


def test_a_bug_in_an_engine_of_ones_own_is_raised_and_not_counted_as_a_failed_call() -> None:
    with RelayPair(ScriptedEngine(TOKENIZER, lambda _: "a<call>3</call>"), Mistaken(), TOKENIZER) as pair:
        with pytest.raises(AttributeError, match="token_ids"):
            pair.generate(["q", "q"])
        with pytest.raises(AttributeError, match="token_ids"):
            list(pair.stream("q"))


def test_a_reader_who_leaves_ends_the_requests_and_the_result_says_what_has_come() -> None:
    student = Streaming(ScriptedEngine(TOKENIZER, ["abcdefgh"]))
    with RelayPair(student, None, TOKENIZER) as pair:
        stream = pair.stream("q")
        assert next(stream).text == "a"
        stream.close()
        result = stream.result()
        assert (result.text[:1], result.finish_reason) == ("a", "unfinished")
        assert student.num_open == 0
        for _ in pair.stream("q"):
            break  # the iterator is left to the garbage collector


async def test_a_caller_who_is_cancelled_cancels_the_writing() -> None:
    student = Streaming(ScriptedEngine(TOKENIZER, ["abc"]), trouble_after=2)
    with RelayPair(student, None, TOKENIZER) as pair:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await pair.agenerate("q", stop="z")
        for _ in range(100):
            if student.num_open == 0:
                break
            await asyncio.sleep(0.02)
        assert (student.num_opened, student.num_open) == (1, 0)


def test_no_more_texts_are_written_at_a_time_than_told() -> None:
    running, most = 0, 0

    class Counting(ScriptedEngine):
        async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
            nonlocal running, most
            running += 1
            most = max(most, running)
            answer = await super().generate(prompt_ids, **options)
            running -= 1
            return answer

    student = Counting(TOKENIZER, lambda _: "ab", delay_s=0.01)
    with RelayPair(student, None, TOKENIZER, num_at_once=3) as pair:
        assert [text.text for text in pair.generate(["q"] * 10)] == ["ab"] * 10
    assert most == 3


def test_seeds_differ_from_text_to_text_and_repeat_from_call_to_call() -> None:
    seeds: list[int] = []

    class Seeing(ScriptedEngine):
        async def generate(self, prompt_ids: list[int], **options: Any) -> Generation:
            seeds.append(options["sampling"]["seed"])
            return await super().generate(prompt_ids, **options)

    with RelayPair(Seeing(TOKENIZER, lambda _: "ab"), None, TOKENIZER) as pair:
        pair.generate(["q", "q"], seed=7)
        pair.generate(["q", "q"], seed=7)
    assert seeds[:2] == seeds[2:]
    assert seeds[0] == 7 != seeds[1]


def test_limits_of_the_students_file_hold_where_a_call_says_nothing() -> None:
    relay = RelayFile(policy="fixed_2", limits=RelayLimits(max_response_tokens=30, max_calls=1))
    with scripted(lambda _: "a<call>9</call>", relay=relay) as pair:
        [text] = pair.generate("q")
    assert text.trajectory.num_tokens == 30
    assert [call.num_requested for call in text.trajectory.calls if call.num_delivered] == [2]


def test_a_closed_pair_can_be_closed_again() -> None:
    pair = scripted(["ab"])
    pair.close()
    pair.close()
    with pytest.raises(UserError, match="closed"):
        pair.generate("b")


# ---- what the documents show ----


def test_the_package_is_cheap_to_import() -> None:
    script = (
        "import sys, relay_verl; heavy = {'torch', 'transformers', 'openai', 'httpx'} & set(sys.modules); print(heavy)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
    assert relay_verl.RelayPair is RelayPair
    with pytest.raises(AttributeError, match="RelayPear"):
        relay_verl.RelayPear  # noqa: B018


def test_the_lines_of_the_readme_run(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "RelayPair" in block]
    for name, folder in zip(('"out/relay_1.7b"', '"Qwen/Qwen3-8B"'), folders, strict=True):
        assert name in code
        code = code.replace(name, repr(str(folder)))
    assert 'engine="vllm"' in code
    exec(compile(code.replace('engine="vllm"', 'engine="transformers"'), "README.md", "exec"), {})
    assert capsys.readouterr().out


EXAMPLES = [("batch.py", ["b", "bl"]), ("stream.py", ["b"]), ("own_engine.py", [])]


@pytest.mark.parametrize(("name", "prompts"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_examples_run(
    folders: tuple[Path, Path],
    name: str,
    prompts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = [str(folder) for folder in folders][: 1 if name == "own_engine.py" else 2]
    script = str(ROOT / "examples" / "python" / name)
    monkeypatch.setattr(sys, "argv", [script, *models, *prompts])
    runpy.run_path(script, run_name="__main__")
    output = capsys.readouterr().out
    assert output.strip()
    if name == "batch.py":
        rows = [json.loads(line) for line in output.splitlines()]
        assert [row["prompt"] for row in rows] == prompts
        assert rows[0]["text"] == "atttz"


def test_a_budget_of_the_teacher_alone_is_not_filled_by_the_student() -> None:
    with scripted(lambda _: "student", lambda _: "teacher writes") as pair:
        [text] = pair.generate("Why?", policy="teacher_alone", max_teacher_tokens=5)
        assert [segment.source for segment in text.trajectory.segments] == ["teacher"]
        assert (text.usage["teacher_tokens"], text.finish_reason) == (5, "length")
        with pytest.raises(UserError, match="max_teacher_tokens"):
            pair.generate("Why?", policy="teacher_alone", max_teacher_tokens=0)


def test_usage_says_that_a_budget_is_spent() -> None:
    with scripted(lambda _: "a<call>3</call>") as pair:
        options = {"max_tokens": 60, "seed": 0}
        [spent] = pair.generate("Why?", max_teacher_tokens=3, **options)
        [free] = pair.generate("Why?", **options)
    assert (spent.usage["is_budget_spent"], free.usage["is_budget_spent"]) == (True, False)


@pytest.mark.parametrize("policy", ["teacher_alone", "random_0.5"])
def test_calls_that_come_by_themselves_need_a_teacher(policy: str) -> None:
    student = ScriptedEngine(TOKENIZER, lambda _: "ab")
    with RelayPair(student, None, TOKENIZER) as pair, pytest.raises(UserError, match=policy):
        pair.generate("Why?", policy=policy)


def test_a_pair_that_is_closed_ends_who_waits_for_it() -> None:
    pair = RelayPair(ScriptedEngine(TOKENIZER, lambda _: "ab", delay_s=10_000), None, TOKENIZER)
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(BaseException):  # noqa: B017
            pair.generate("Why?")
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not asyncio.all_tasks(pair._loop._loop):
        pass
    pair.close()
    assert ended.wait(60)
