"""What schemathesis makes of the application's own OpenAPI schema: no request has a 500, every error has one form."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from relay_verl.serving.app import ErrorBody
from tests.helpers.serving import RuleEngine, asks_once, make_app, make_service

service = make_service(RuleEngine(asks_once), max_model_len=256)
schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(service))


@schema.parametrize()
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_no_request_of_the_schema_breaks_the_server(case: schemathesis.Case) -> None:
    response = case.call()
    assert response.status_code < 500
    if response.status_code >= 400 and case.operation.path != "/health":
        ErrorBody.model_validate(response.json())
        assert "Traceback" not in response.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/tokenize"])
def test_the_schema_has_every_endpoint(path: str) -> None:
    assert path in schema.raw_schema["paths"]
    errors = schema.raw_schema["paths"][path].popitem()[1]["responses"]
    assert errors["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
