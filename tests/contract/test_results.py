"""The tiny world's claims and results: numbers of questions, and numbers that pages cite, are those of the files."""

import re

import pytest

from relay_verl.report.cited import Data, has_marks
from relay_verl.report.claim import read_claims
from relay_verl.report.claim_power import check_power
from relay_verl.traces.question_table import QUESTIONS
from relay_verl.traces.results import find_results, read_result
from tests.helpers.pages import PAGES, ROOT

TINY = ROOT / "examples" / "tiny"
CLAIMS, RESULTS = TINY / "claims.yaml", TINY / "results"
MAX_BYTES = 1_000_000
"""Of all data files together."""


def test_each_claim_has_the_questions_that_its_power_needs() -> None:
    check_power(read_claims(CLAIMS))


def test_claims_of_every_table_are_there() -> None:
    places = " ".join(claim.place for claim in read_claims(CLAIMS).claims)
    assert {"Table 1", "Table 3", "Table 5", "Figure 1", "5.2", "5.3", "5.4", "5.5", "ours"} <= set(
        re.findall(r"Table \d|Figure \d|\d\.\d|ours", places)
    )


@pytest.mark.skipif(not RESULTS.exists(), reason="nothing has been measured")
def test_the_data_files_are_whole_and_small() -> None:
    assert (RESULTS / QUESTIONS).is_file()
    assert all(read_result(path).is_condensed for path in find_results([RESULTS]))
    assert sum(path.stat().st_size for path in RESULTS.iterdir()) <= MAX_BYTES


def test_the_numbers_that_pages_cite_are_those_of_the_data() -> None:
    citing = [page for page in PAGES if has_marks(page.read_text())]
    if citing:
        data = Data([RESULTS], CLAIMS)
        words = f"relay-verl claims {CLAIMS.relative_to(ROOT)} --results {RESULTS.relative_to(ROOT)}"
        for page in citing:
            assert data.cite(page.read_text()) == page.read_text(), f"{words} --cite {page.relative_to(ROOT)}"
