"""The learning curves as a picture of a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay_verl.errors import as_user_error
from relay_verl.jobs.byproducts import by_product
from relay_verl.report.curves import NUM_STEPS_TO_SMOOTH, plot_curves, read_log
from relay_verl.report.document import Picture
from relay_verl.report.drawing import to_svg

CURVES = "curves"
"""Name of the picture and of its files."""
_NOTE = (
    f"Runs of fewer than {NUM_STEPS_TO_SMOOTH} steps as they were; of longer ones the raw points, and moving "
    "averages over about a tenth of each run."
)


def curves_picture(metrics: Mapping[str, Path], out: Path, references: Mapping[str, float]) -> Picture | None:
    """Draw the curves into `out` and give them as a picture; None where drawing fails, which is a warning.

    Args:
        metrics: logs of training runs by label.
        out: the page's folder; it gets the curves as SVG and PNG.
        references: accuracies to compare with (`relay_verl.report.curves.plot_curves`).

    Raises:
        UserError: a log cannot be read.
    """
    file = out / f"{CURVES}.svg"
    with as_user_error((OSError, ValueError), "--metrics"):
        for path in metrics.values():
            read_log(path)
    note = _NOTE
    if references:
        note += " Dotted: the models alone in the evaluation, whose questions are not those of the training."
    with by_product("the report's learning curves"):
        plot_curves(metrics, file.with_suffix(".png"), references=references)
        svg = to_svg(file.read_text(encoding="utf-8"), is_light=True)
        return Picture(CURVES, "Learning curves", svg, note)
    return None
