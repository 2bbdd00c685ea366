"""The paper's Tables 1 to 6 and Figures 1 and 3 next to our results, as Markdown and as one HTML page.

`groups` puts results together, `comparison` and `tables` set them next to the paper's numbers, `directions` says which
of the paper's claims they show, `random_router` computes Figure 1's numbers, `cost` what it took, `drawing` and
`figures` draw, `document` holds tables and pictures as data and renders them twice, `write` puts it all together.
`statistics` has every interval and test. `claim` is a file of claims that were settled before the runs, `claim_power`
says how many questions they need, `claim_verdict` what results show of them, `cited` puts numbers into pages. A new
table or figure is a function that gives a part of the `document` and is called in `write`. May import `judging` and
what is below it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relay_verl.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        # it draws, and who summarizes or writes a page need not wait for matplotlib
        from relay_verl.report.write import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
