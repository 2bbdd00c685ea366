"""The report's page in a real browser: its pictures are drawn, it fits a narrow window, and it asks for nothing."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from relay_verl.report import write_report
from tests.helpers.browser import open_tab
from tests.unit.report.test_report import make_tiny_world

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make_tiny_world(folder / "results")
    write_report([folder / "results"], folder / "out")
    return folder / "out" / "report.html"


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_tables_and_pictures_are_there_and_fit(page: Path, width: int) -> None:
    with open_tab(page, width=width) as tab:
        assert tab.evaluate("document.querySelector('.headline').innerText").startswith("Tiny world: with its teacher")
        tab.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        pictures = tab.evaluate("[...document.querySelectorAll('svg')].map((svg) => svg.getBoundingClientRect().width)")
        assert len(pictures) >= 5
        assert all(300 < drawn <= max(width, 480) for drawn in pictures), "readable; a narrow window scrolls them"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "only tables and pictures scroll sideways"
        text = tab.evaluate("document.body.innerText")
        screenshot = imread(tab.screenshot(page.with_name(f"{width}.png")))
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
        assert tab.errors == []
    for words in ("Table 1", "Table 6", "Figure 1", "Figure 3", "49.52", "not measured", "shown"):
        assert words in text
    assert np.ptp(screenshot[..., :3]) > 0.5, "something is drawn"
