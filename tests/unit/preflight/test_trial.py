"""What is done once before a run: a row through each chat template, a completion of each endpoint."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay_verl.config import TeacherSettings
from relay_verl.preflight import trial as module
from relay_verl.preflight.check import CheckWarning
from relay_verl.preflight.rows import TrialRow, first_of_each_shape
from relay_verl.preflight.trial import Reader, Request, Trial, Wording, check_completions, check_prompts
from tests.helpers.errors import one_line
from tests.helpers.fake_vllm import PREFILL, chat_route
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
NO_SYSTEM = (  # as Gemma's
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
ALTERNATING = (  # as Mistral's
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)
QUESTION = TrialRow("data.train_files: a.parquet: row 1", [{"role": "user", "content": "What is 7*8?"}], "math")
WITH_SYSTEM = TrialRow(
    "data.train_files: a.parquet: row 500",
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "7*8?"}],
    "logic",
)


def tokenizer(template: str) -> Any:
    made = make_bpe(BPE_WORDS)
    made.chat_template = template
    return made


def reader(chat_template: str = TEMPLATE, **values: Any) -> Reader:
    return Reader("relay.teacher.text_bridge: big", tokenizer(chat_template), **values)


# ---- prompts ----


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING], ids=["no system role", "alternating roles"])
def test_a_template_that_refuses_a_row_is_named_with_the_row(template: str) -> None:
    check_prompts(Trial([QUESTION], [reader(template)]))
    line = one_line(check_prompts, Trial([QUESTION, WITH_SYSTEM], [reader(), reader(template)]))
    for part in (WITH_SYSTEM.place, "relay.teacher.text_bridge: big", "system, user", "TemplateError"):
        assert part in line


def test_a_template_with_an_argument_of_the_wrong_kind_is_named() -> None:
    """As `enable_thinking` with a template that calls it."""
    odd = reader("{{ enable_thinking.strip() }}" + TEMPLATE, template={"enable_thinking": False})
    assert "does not take its roles user" in one_line(check_prompts, Trial([QUESTION], [odd]))


def test_a_template_that_writes_nothing_is_named() -> None:
    line = one_line(check_prompts, Trial([QUESTION], [reader("{% if false %}{{ messages }}{% endif %}")]))
    assert "writes an empty prompt" in line


@pytest.mark.parametrize(
    ("template", "is_doubtful"),
    [
        (TEMPLATE, False),
        ("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", False),
        ("{% for m in messages %}{{ m.text }}{% endfor %}answer:", True),
        ("{{ messages[0]['content'] }}", True),
    ],
    ids=["whole", "trimmed", "another key", "the first message alone"],
)
def test_a_prompt_without_the_question_is_a_doubt(template: str, is_doubtful: bool) -> None:
    assert isinstance(check_prompts(Trial([WITH_SYSTEM], [reader(template)])), CheckWarning) is is_doubtful


def test_a_question_in_parts_is_in_its_prompt() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "7*8?"}]
    trial = Trial([TrialRow("file: row 1", [{"role": "user", "content": parts}])], [reader()])
    assert not isinstance(check_prompts(trial), CheckWarning)


def test_a_reader_is_tried_with_its_own_rows_alone() -> None:
    check_prompts(Trial([QUESTION, WITH_SYSTEM], [reader(NO_SYSTEM, data_sources=("math",))]))
    one_line(check_prompts, Trial([QUESTION, WITH_SYSTEM], [reader(NO_SYSTEM, data_sources=("logic",))]))


def test_one_row_of_each_sequence_of_roles_is_tried() -> None:
    rows = [QUESTION, QUESTION, WITH_SYSTEM, QUESTION, WITH_SYSTEM]
    assert first_of_each_shape(rows) == [QUESTION, WITH_SYSTEM]


# ---- completions ----


def completion(**choice: Any) -> dict[str, Any]:
    known = {"index": 0, "text": "hi", "finish_reason": "stop", "stop_reason": None, "token_ids": [7, 8]}
    return {"id": "1", "object": "text_completion", "created": 1, "model": "big", "choices": [{**known, **choice}]}


SAMPLING = {"temperature": 0.7, "top_p": 1.0, "top_k": -1, "seed": 5}


def endpoint(fake: Any, *wordings: Wording, vocab_size: int | None = 300, **values: Any) -> Trial:
    asked = wordings or (Wording(SAMPLING, 64),)
    settings = TeacherSettings(base_url=fake.url)
    request = Request(f"relay.teacher.base_url: {fake.url}", settings, reader(), asked, vocab_size, **values)
    return Trial([QUESTION], [], [request])


def bodies(fake: Any) -> list[dict[str, Any]]:
    return [body for path, _, body in fake.requests if path == "/v1/completions"]


def test_an_endpoint_is_asked_with_the_parameters_that_will_be_sent(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = completion()
    wordings = (Wording(SAMPLING, 64), Wording({"temperature": 0.0}, 8, ("</call>",)))
    assert not isinstance(check_completions(endpoint(fake_vllm, *wordings)), CheckWarning)
    prompt = reader().tokenizer.apply_chat_template(QUESTION.messages, tokenize=True, return_dict=False)
    sent = bodies(fake_vllm)
    assert all(body["prompt"] == prompt and body["return_token_ids"] for body in sent)
    sampled = [body for body in sent if body["temperature"] == 0.7]
    assert {(body["top_k"], body["seed"], body.get("stop")) for body in sampled} == {(-1, 5, None)}
    assert sorted(body["max_tokens"] for body in sampled) == [module.NUM_TOKENS, 64], "a few tokens, and the most"
    (greedy,) = [body for body in sent if body["temperature"] == 0.0]
    assert (greedy["stop"], greedy["max_tokens"]) == (["</call>"], 8)


def refuse(name: str) -> Any:
    """A server that does not know a parameter."""

    def route(body: dict[str, Any]) -> Any:
        if name in body and body[name] is not None:
            return 400, {"error": {"message": f"Unsupported parameter: {name!r}"}}
        return completion()

    return route


def small_context(body: dict[str, Any]) -> Any:
    if len(body["prompt"]) + body["max_tokens"] > 100:
        return 400, {"error": {"message": "This model's maximum context length is 100 tokens."}}
    return completion()


BROKEN = [
    # route, part of the line, why
    (completion(token_ids=None), "token_ids", "no token ids come back"),
    (completion(token_ids=[]), "no token", "an empty answer"),
    (completion(token_ids=[7, 300]), "token id 300, but the vocabulary", "another model's ids"),
    ({"choices": []}, "completion", "no choice"),
    (b"<html>Welcome</html>", "relay.teacher.base_url", "a web page"),
    ((404, {"error": {"message": "no such path"}}), "no such path", "only chat completions"),
    ((401, {"error": {"message": "Incorrect API key"}}), "API key", "a key that lists models and may not complete"),
    ((500, {"error": {"message": "out of memory"}}), "out of memory", "a server that fails"),
    (refuse("prompt"), "Unsupported parameter", "a parameter that nothing replaces"),
    (small_context, "maximum context length", "a context that is too small for the longest call"),
]


@pytest.mark.parametrize(("route", "part", "why"), BROKEN, ids=[why for *_, why in BROKEN])
def test_an_endpoint_that_cannot_serve_calls_is_refused(fake_vllm: Any, route: Any, part: str, why: str) -> None:
    fake_vllm.routes["/v1/completions"] = route
    line = one_line(check_completions, endpoint(fake_vllm, Wording(SAMPLING, 99)))
    assert line.startswith(f"relay.teacher.base_url: {fake_vllm.url}")
    assert part in line, why


def test_a_row_that_alone_is_refused_is_a_doubt(fake_vllm: Any) -> None:
    """The first row of a file is longer than the model takes; the other rows are answered."""
    fake_vllm.routes["/v1/completions"] = small_context
    long = TrialRow("file: row 1", [{"role": "user", "content": "What is 7*8? " * 40}])
    trial = replace(endpoint(fake_vllm, Wording(SAMPLING, 40)), rows=[long])
    doubt = check_completions(trial)
    assert isinstance(doubt, CheckWarning)
    assert all(part in str(doubt) for part in ("refuses file: row 1", "maximum context length"))
    fake_vllm.routes["/v1/completions"] = (400, {"error": {"message": "no"}})
    assert "a completion as it will be asked fails" in one_line(check_completions, trial)


def test_the_line_says_what_was_sent(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = (500, {"error": {"message": "out of memory"}})
    assert "temperature=0.7, top_p=1.0, top_k=-1, seed=5" in one_line(check_completions, endpoint(fake_vllm))


@pytest.mark.parametrize("name", ["top_k", "seed"])
def test_a_parameter_that_the_client_leaves_out_is_not_missed(fake_vllm: Any, name: str) -> None:
    fake_vllm.routes["/v1/completions"] = refuse(name)
    check_completions(endpoint(fake_vllm))
    assert any(name not in body for body in bodies(fake_vllm))


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_with_too_much_to_do_is_a_doubt(fake_vllm: Any, status: int) -> None:
    fake_vllm.routes["/v1/completions"] = (status, {"error": {"message": "overloaded"}})
    assert isinstance(check_completions(endpoint(fake_vllm)), CheckWarning)


def test_an_endpoint_that_says_nothing_is_refused(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.2)
    fake_vllm.routes["/v1/completions"] = lambda body: time.sleep(1.0)
    assert fake_vllm.url in one_line(check_completions, endpoint(fake_vllm))


def test_an_endpoint_that_is_busy_is_a_doubt(fake_vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPLETION_DEADLINE_S", 0.3)
    fake_vllm.routes["/v1/completions"] = lambda body: time.sleep(1.0)
    assert isinstance(check_completions(endpoint(fake_vllm)), CheckWarning)


def test_a_bridged_endpoint_is_asked_in_its_own_ids(fake_vllm: Any) -> None:
    teacher = make_bpe(BPE_WORDS[:4])
    teacher.chat_template = "Q {{ messages[-1].content }} A"
    fake_vllm.routes["/v1/completions"] = completion(token_ids=teacher.encode(" 56", add_special_tokens=False))
    bridge = Reader("relay.teacher.text_bridge: big", teacher)
    assert not isinstance(check_completions(endpoint(fake_vllm, bridge=bridge)), CheckWarning)
    assert {teacher.decode(body["prompt"]) for body in bodies(fake_vllm)} == {"Q What is 7*8? A"}


def test_several_endpoints_fail_with_the_first_of_them(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = completion(token_ids=None)
    one = endpoint(fake_vllm).requests[0]
    down = Request(
        "relay.teachers.0.base_url: x", TeacherSettings(base_url="http://127.0.0.1:9/v1"), reader(), one.wordings
    )
    assert one_line(check_completions, Trial([QUESTION], [], [down, one])).startswith("relay.teachers.0.base_url")


def test_without_rows_a_question_of_our_own_is_asked(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/completions"] = completion()
    check_completions(Trial([], [], endpoint(fake_vllm).requests))
    assert bodies(fake_vllm)


def test_no_endpoint_costs_nothing(tmp_path: Path) -> None:
    assert check_completions(Trial([QUESTION], [reader()])) == "no endpoint"


# ---- a chat API ----

RESPONSE = f"{module.WRITTEN} 7*8 is 56."


def chat_trial(fake: Any, **values: Any) -> Trial:
    trial = endpoint(fake, Wording(SAMPLING, 64, is_call=True), **values)
    (request,) = trial.requests
    return replace(trial, requests=[replace(request, settings=replace(request.settings, api="chat", model="big"))])


def test_a_chat_api_is_asked_to_continue_a_text_and_for_a_few_tokens_alone(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/chat/completions"] = chat_route(RESPONSE)
    assert not isinstance(check_completions(chat_trial(fake_vllm)), CheckWarning)
    (body,) = [body for path, _, body in fake_vllm.requests if path.endswith("/chat/completions")]
    assert body["messages"] == [*QUESTION.messages, {"role": "assistant", "content": module.WRITTEN}]
    assert body["max_tokens"] == module.NUM_TOKENS, "the longest request would be billed as a whole"


def test_a_chat_api_that_refuses_the_prefix_is_named_before_a_model_loads(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/chat/completions"] = chat_route(RESPONSE, refuses_prefix=PREFILL)
    line = one_line(check_completions, chat_trial(fake_vllm))
    for part in (f"relay.teacher.base_url: {fake_vllm.url}", "chat_prefix=explain", "chat_fallback=true"):
        assert part in line


def test_a_chat_api_that_bills_more_than_asked_is_a_warning(fake_vllm: Any) -> None:
    fake_vllm.routes["/v1/chat/completions"] = chat_route(RESPONSE, num_hidden=200)
    warning = check_completions(chat_trial(fake_vllm))
    assert isinstance(warning, CheckWarning) and "bills 211 tokens" in str(warning)
