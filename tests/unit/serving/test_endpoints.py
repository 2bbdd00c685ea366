"""Everything but answers: models, health, metrics, tokenizer, keys, names of requests, errors."""

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay_verl.errors import PermanentError
from relay_verl.serving.settings import ServerState
from tests.helpers.serving import RuleEngine, client_of, make_app, make_service, text_of, tokenizer

TEXT = {"prompt": "hi", "max_tokens": 60}


async def test_the_pair_is_listed_first_and_its_aliases_after_it() -> None:
    async with client_of(make_app()) as client:
        listed = (await client.get("/v1/models")).json()
        names = [model["id"] for model in listed["data"]]
        assert names == ["pair", "pair:teacher-free", "pair:student", "pair:teacher", "pair:fixed-20"]
        assert {model["max_model_len"] for model in listed["data"]} == {4096}
        for name in (*names, "pair:fixed-7"):
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
        response = await client.get("/v1/models/pear")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["pear", "pair:", "pair:fixed-0", "pair:fixed-x", "pair:teacher:x", "PAIR"])
async def test_an_unknown_model_is_not_answered(model: str) -> None:
    async with client_of(make_app()) as client:
        response = await client.post("/v1/completions", json={**TEXT, "model": model})
    assert (response.status_code, response.json()["error"]["param"]) == (404, "model")
    assert "pair:fixed-20" in response.json()["error"]["message"]


async def test_without_a_teacher_its_names_are_not_served() -> None:
    service = make_service(teacher=False)
    async with client_of(make_app(service)) as client:
        names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert names == ["pair", "pair:teacher-free", "pair:student"]
        response = await client.post("/v1/completions", json={**TEXT, "model": "pair:teacher"})
        assert response.status_code == 404
        response = await client.post("/v1/completions", json={**TEXT, "relay": {"policy": "teacher_alone"}})
        assert response.status_code == 400


@pytest.mark.parametrize("state", list(ServerState))
async def test_health_and_answers_follow_the_state(state: ServerState) -> None:
    takes = state in (ServerState.READY, ServerState.TEACHER_DOWN)
    async with client_of(make_app(state=state)) as client:
        health = await client.get("/health")
        assert (health.status_code, health.content) == (200 if takes else 503, b"")
        assert (await client.get("/ping")).status_code == health.status_code
        response = await client.post("/v1/completions", json=TEXT)
        assert response.status_code == (200 if takes else 503)
        if not takes:
            assert response.json()["error"]["code"] == state.value
            assert response.headers["retry-after"]
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


async def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SERVE_API_KEY", " one , two,")
    async with client_of(make_app()) as client:
        for headers, is_known in [
            ({}, False),
            ({"Authorization": "Bearer three"}, False),
            ({"Authorization": "one"}, False),
            ({"Authorization": "Basic one"}, False),
            ({"Authorization": "Bearer "}, False),
            ({"Authorization": "Bearer one"}, True),
            ({"Authorization": "bearer two"}, True),
        ]:
            for path in ("/v1/models", "/tokenizer_info"):
                response = await client.get(path, headers=headers)
                assert response.status_code == (200 if is_known else 401), headers
            if not is_known:
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert "one" not in response.text
        for path in ("/health", "/metrics", "/version", "/ping", "/"):
            assert (await client.get(path)).status_code == 200


async def test_a_request_keeps_its_name() -> None:
    async with client_of(make_app()) as client:
        response = await client.post("/v1/completions", json=TEXT, headers={"X-Request-Id": "mine-1"})
        assert (response.headers["x-request-id"], response.json()["id"]) == ("mine-1", "cmpl-mine-1")
        for name in ("", "x" * 200):
            response = await client.get("/version", headers={"X-Request-Id": name})
            assert len(response.headers["x-request-id"]) == 32
        assert (await client.get("/nothing")).headers["x-request-id"]


async def test_paths_and_methods_that_do_not_exist_are_errors_of_one_form() -> None:
    async with client_of(make_app()) as client:
        for method, path, status in [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)]:
            response = await client.request(method, path)
            assert response.status_code == status
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_the_tokenizer_answers_as_vllms_does() -> None:
    async with client_of(make_app()) as client:
        tokens = (await client.post("/tokenize", json={"prompt": "so <call>", "add_special_tokens": False})).json()
        assert tokens["tokens"] == tokenizer().encode("so <call>", add_special_tokens=False)
        assert tokens["count"] == len(tokens["tokens"])
        text = (await client.post("/detokenize", json={"tokens": tokens["tokens"]})).json()
        assert text == {"prompt": "so <call>"}
        chat = (await client.post("/tokenize", json={"messages": [{"role": "user", "content": "hi"}]})).json()
        assert chat["tokens"] == tokenizer().encode("user: hi\nassistant:")
        assert (await client.get("/tokenizer_info")).json()["eos_token"] == tokenizer().eos_token
        assert (await client.post("/detokenize", json={"tokens": [10**8]})).json() == {"prompt": ""}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"documents": [{"text": "x"}]}, "documents"),
        ({"mm_processor_kwargs": {"x": 1}}, "mm_processor_kwargs"),
        ({"model": "pear"}, "model"),
    ],
)
@pytest.mark.parametrize("base", [{"prompt": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}, {"tokens": [5]}])
async def test_the_tokenizer_ignores_nothing(base: dict[str, Any], extra: dict[str, Any], param: str) -> None:
    path = "/detokenize" if "tokens" in base else "/tokenize"
    async with client_of(make_app()) as client:
        response = await client.post(path, json={**base, **extra})
        assert (response.status_code, response.json()["error"]["param"]) == (404 if param == "model" else 400, param)
        neutral = {"model": "pair:student", "tools": None}
        assert (await client.post(path, json={**base, **neutral})).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}, "prompt"),
        ({"prompt": "hi", "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
        ({"prompt": "hi", "continue_final_message": True}, "continue_final_message"),
        ({"messages": [{"role": "user", "content": "hi"}], "add_special_tokens": True}, "add_special_tokens"),
    ],
)
async def test_what_a_text_or_a_chat_has_alone(body: dict[str, Any], param: str) -> None:
    async with client_of(make_app()) as client:
        response = await client.post("/tokenize", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_the_page_is_served() -> None:
    async with client_of(make_app()) as client:
        page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")


async def test_a_browser_of_another_origin_needs_leave() -> None:
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for origins, is_allowed in [((), False), (("https://app.example",), True)]:
        async with client_of(make_app(allow_origins=origins)) as client:
            response = await client.options("/v1/completions", headers=ask)
        assert ("access-control-allow-origin" in response.headers) is is_allowed


async def metrics_of(client: httpx.AsyncClient) -> dict[str, float]:
    """Samples by name and label values."""
    page = (await client.get("/metrics")).text
    families = text_string_to_metric_families(page)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_count_what_usage_says() -> None:
    async with client_of(make_app()) as client:
        usage = (await client.post("/v1/completions", json=TEXT)).json()["usage"]
        await client.post("/v1/completions", json={"prompt": 3})
        metrics = await metrics_of(client)
    relay = usage["relay"]
    assert metrics["relay:tokens_total student"] == relay["student_tokens"]
    assert metrics["relay:tokens_total teacher"] == relay["teacher_tokens"]
    assert metrics["relay:prompt_tokens_total"] == usage["prompt_tokens"]
    assert metrics["relay:calls_total served"] == relay["num_calls"] == 1
    assert metrics["relay:teacher_context_tokens_total hit"] == relay["teacher_cached_tokens"]
    assert metrics["relay:teacher_context_tokens_total miss"] == relay["teacher_prefilled_tokens"]
    assert metrics["relay:call_latency_seconds_count"] == 1
    assert metrics["relay:time_to_first_token_seconds_count"] == 1
    assert metrics["relay:e2e_request_latency_seconds_count"] == 1
    assert metrics["relay:request_success_total stop"] == 1
    assert metrics["relay:request_errors_total invalid_value"] == 1
    assert metrics["relay:requests_running"] == metrics["relay:requests_waiting"] == 0
    assert metrics["relay:server_state ready"] == 1


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_student_that_is_down_is_an_error_in_time(is_stream: bool) -> None:
    student = RuleEngine(lambda _: "x" * 30)
    student.is_dead = True
    async with client_of(make_app(make_service(student))) as client:
        response = await client.post("/v1/completions", json={**TEXT, "stream": is_stream})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "student_failed")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(("choice", "status"), [(None, 200), ("continue", 200), ("drop", 503), ("fail", 503)])
async def test_a_teacher_that_is_down(choice: str | None, status: int) -> None:
    teacher = RuleEngine(lambda _: "abcdef")
    teacher.is_dead = True
    async with client_of(make_app(make_service(teacher=teacher))) as client:
        relay = {} if choice is None else {"on_teacher_failure": choice}
        response = await client.post("/v1/completions", json={**TEXT, "relay": relay})
        assert response.status_code == status
        if status == 200:
            assert response.json()["choices"][0]["text"] == " so end."
            assert response.json()["usage"]["relay"]["num_failed_calls"] == 1
        else:
            assert response.json()["error"]["code"] == "teacher_failed"
        alone = await client.post("/v1/completions", json={**TEXT, "model": "pair:teacher"})
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "teacher_failed")
        metrics = await metrics_of(client)
    assert metrics["relay:teacher_failures_total"] == metrics["relay:calls_total failed"] == 2


async def test_a_failure_in_the_middle_of_a_stream_is_its_last_event() -> None:
    student = RuleEngine(lambda _: "x" * 30, piece=1)
    service = make_service(student)
    student_stream = student.stream

    async def dies(*args: object, **options: object) -> object:  # after the first pieces
        async for piece in student_stream(*args, **options):  # type: ignore[arg-type]
            yield piece
            student.is_dead = student.num_written >= 3

    student.stream = dies  # type: ignore[method-assign, assignment]
    async with client_of(make_app(service)) as client:
        response = await client.post("/v1/completions", json={**TEXT, "stream": True})
    assert response.status_code == 200
    events = response.text.strip().split("\n\n")
    assert '"student_failed"' in events[-2]
    assert events[-1] == "data: [DONE]"


@pytest.mark.parametrize("is_stream", [True, False])
async def test_what_the_student_refuses_for_good_is_the_clients_error(is_stream: bool) -> None:
    student = RuleEngine(lambda _: "x")

    async def refuses(*_: object, **__: object) -> object:
        raise PermanentError("the prompt is longer than the model reads")
        yield

    student.stream = refuses  # type: ignore[method-assign, assignment]
    async with client_of(make_app(make_service(student))) as client:
        response = await client.post("/v1/completions", json={**TEXT, "stream": is_stream})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "engine_refused")


async def test_ids_that_are_not_the_models_are_not_remembered() -> None:
    service = make_service()
    async with client_of(make_app(service)) as client:
        await client.post("/detokenize", json={"tokens": list(range(10**6, 10**6 + 1000))})
    assert not any(token_id >= 10**6 for token_id in service.tokens._known)


async def test_a_tokenized_chat_may_end_in_its_last_message() -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is"}]
    body = {"messages": chat, "add_generation_prompt": False, "continue_final_message": True}
    async with client_of(make_app()) as client:
        ids = (await client.post("/tokenize", json=body)).json()["tokens"]
    assert text_of(ids).endswith("assistant: It is")


async def test_a_page_of_another_origin_can_read_why_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_SERVE_API_KEY", "right-key")
    async with client_of(make_app(allow_origins=("http://page",)), Origin="http://page") as client:
        response = await client.get("/v1/models")
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, "http://page")


async def test_a_request_that_is_refused_has_no_prompt_tokens() -> None:
    service = make_service(teacher_tokens_per_minute=0)
    async with client_of(make_app(service)) as client:
        response = await client.post("/v1/completions", json={"prompt": "hi", "model": "pair:teacher"})
        assert response.status_code == 429
        assert (await metrics_of(client))["relay:prompt_tokens_total"] == 0
