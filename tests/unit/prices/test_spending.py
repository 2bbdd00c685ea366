"""What evaluations cost: from records and manifests to summary.json, the report's table and the command's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay_verl.config import read_settings
from relay_verl.evaluation.job_spec import note_costs
from relay_verl.prices import PriceList, TokenPrice, Usage
from relay_verl.report.groups import group_results
from relay_verl.report.spending_table import spending_of, spending_table, spending_to_markdown
from relay_verl.report.summary import summary_of
from relay_verl.report.write import write_report
from relay_verl.traces.records import ResponseRecord, write_records
from relay_verl.traces.results import MANIFEST, RESPONSES, Result, read_result
from relay_verl.traces.spending import spending
from tests.helpers.records import alone, call, record, teacher

PRICES = PriceList("USD", TokenPrice(0.05, 0.005, 0.15), TokenPrice(0.2, 0.02, 0.6))
PARAMETERS = {"student": 1_000, "teacher": 8_000}
JOB = {"condition": "relay", "policy": "learned", "student": "s", "teacher": "t", "teacher_name": "t", "seed": 0}


def folder(path: Path, records: list[ResponseRecord], summary: dict[str, Any] | None, **job: Any) -> Path:
    write_records(path / RESPONSES, records)
    manifest: dict[str, Any] = {"job": JOB | job, "num_queries": len(records)}
    if summary is not None:
        manifest["summary"] = summary
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


def noted(prices: PriceList | None = PRICES) -> dict[str, Any]:
    return {"prices": prices and prices.to_dict(), "num_parameters": PARAMETERS}


def test_what_responses_cost() -> None:
    spent = spending([record(), alone()], PRICES, PARAMETERS)
    # the first reads 12, then 20 of which it wrote or read 18; the second reads 12
    assert spent.student == Usage(12 + 20 + 12, 18, 6 + 2 + 10)
    assert spent.teacher == Usage(20, 16, 2)
    assert (spent.student_flops, spent.teacher_flops) == (2 * 1_000 * (26 + 18), 2 * 8_000 * (4 + 2))
    assert spent.cost == pytest.approx(PRICES.student.cost(spent.student) + PRICES.teacher.cost(spent.teacher))
    assert spent.cost_of_teacher_alone == pytest.approx(PRICES.teacher.cost(Usage(24, 0, 20)))
    assert spent.cost_share == pytest.approx((spent.cost or 0) / (spent.cost_of_teacher_alone or 1))


def test_without_prices_and_parameters_tokens_are_left() -> None:
    spent = spending([record()], None, {})
    assert spent.teacher.num_output == 2
    assert (spent.teacher_flops, spent.currency, spent.cost, spent.cost_share) == (None, None, None, None)
    assert spending([alone()], None, {}).teacher_flops == 0, "a teacher that took no part needs no parameters"


def test_what_an_api_bills_is_what_counts() -> None:
    billed = {**call("served", 2, 2), "num_billed_input": 30, "num_billed_output": 90}
    plain = record(calls=[billed])
    assert ResponseRecord.from_json(plain.to_json()) == plain
    assert spending([plain], PRICES, {}).teacher == Usage(30, 16, 90)
    assert "num_billed_input" not in record().to_json(), "an old record stays byte for byte"


def test_the_summary_has_tokens_flops_and_money(tmp_path: Path) -> None:
    numbers = summary_of(read_result(folder(tmp_path, [record(), alone()], noted())))["all_benchmarks"]
    spent = spending([record(), alone()], PRICES, PARAMETERS)
    assert (numbers["num_teacher_read_tokens"], numbers["num_teacher_cached_tokens"]) == (20, 16)
    assert (numbers["teacher_flops"], numbers["student_flops"]) == (spent.teacher_flops, spent.student_flops)
    assert (numbers["currency"], numbers["cost"]) == ("USD", spent.cost)
    assert numbers["cost_of_teacher_alone"] == spent.cost_of_teacher_alone


def test_a_folder_of_an_earlier_version_has_no_money(tmp_path: Path) -> None:
    result = read_result(folder(tmp_path, [record()], None))
    assert (result.prices, result.num_parameters) == (None, {})
    numbers = summary_of(result)["all_benchmarks"]
    assert (numbers["teacher_flops"], numbers["cost"], numbers["num_teacher_billed_tokens"]) == (None, None, 2)


def test_the_report_has_the_table(tmp_path: Path) -> None:
    priced = folder(tmp_path / "results" / "a", [record()], noted())
    folder(tmp_path / "results" / "b", [alone(condition="free")], None, condition="free", policy="teacher_free")
    text = write_report([tmp_path / "results"], tmp_path / "report")
    assert "Tokens, FLOPs and money" in text and "USD" in text
    table = spending_table(group_results([read_result(priced)]))
    (row,) = table.rows
    cells = dict(zip(table.head, row, strict=True))
    assert (cells["teacher reads"], cells["teacher writes"]) == ("20.0 (4.0)", "2.0")
    assert cells["teacher's FLOPs"] == "9.6e+04"
    assert cells["money, 1,000 responses"].endswith(" USD")
    markdown = spending_to_markdown([read_result(priced)])
    assert "| relay" in markdown and "USD" in markdown


def test_runs_of_several_prices_do_not_add_up(tmp_path: Path) -> None:
    one = read_result(folder(tmp_path / "one", [record()], noted()))
    other = read_result(folder(tmp_path / "other", [record()], noted(replace(PRICES, currency="EUR"))))
    spent = spending_of([one, other])
    assert spent is not None and spent.cost is None and spent.teacher.num_output == 4
    assert spending_of([Result(tmp_path, {"job": {}}, [])]) is None


def test_what_the_manifest_notes() -> None:
    prices = {"teacher": {"preset": "openai/gpt-4.1", "num_parameters": 7}}
    settings = read_settings({"teacher": {"path": "a"}, "prices": prices}).prices
    costs = note_costs(settings, None, "https://api.example.com/v1")
    assert costs["num_parameters"] == {"student": None, "teacher": 7}
    assert PriceList.from_dict(costs["prices"]).teacher.output == 8.0
    assert json.loads(json.dumps(costs)) == costs
    plain = note_costs(read_settings({"teacher": {"path": "a"}}).prices, "no/model", "http://127.0.0.1:9/v1")
    assert plain == {"prices": None, "num_parameters": {"student": None, "teacher": None}}


def test_the_teacher_alone_costs_what_the_teacher_alone_costs() -> None:
    whole = record(
        segments=[teacher("56", 10)], num_teacher_tokens=10,
        calls=[{**call("served", 10, 10), "num_context": 12, "num_cached": 0, "has_command": False}],
    )  # fmt: skip
    spent = spending([whole], PRICES, PARAMETERS)
    assert spent.student == Usage() and spent.cost_share == pytest.approx(1.0)
