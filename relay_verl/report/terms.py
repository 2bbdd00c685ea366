"""What the report's columns mean, for tooltips and for the list of terms at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TERMS: Mapping[str, str] = {
    "accuracy (%)": "share of right answers; over several benchmarks the mean of their accuracies",
    "right": "right responses out of all",
    "call rate (%)": "responses in which the teacher was asked, or that a random router gave to it",
    "call ratio, pooled (%)": "the teacher's tokens over all tokens of all benchmarks together",
    "call ratio, mean (%)": "the teacher's share of each response's tokens, averaged over responses (rho, Eq. 3)",
    "Avg. call ratio": "the teacher's share of each benchmark's tokens, averaged over benchmarks",
    "Pooled call ratio": "the teacher's tokens over all tokens of all benchmarks together",
    "Call rate": "responses in which the teacher was asked",
    "Average": "mean of the benchmarks' accuracies",
    "Easy": "mean of Minerva, MATH500, GSM8K and Olympiad",
    "Hard": "mean of both AIME",
    "average": "the teacher's share of each benchmark's tokens, averaged over benchmarks (%)",
    "pooled": "the teacher's tokens over all tokens of all benchmarks together (%)",
    "mean": "the teacher's share of each response's tokens, averaged over responses (%)",
    "seeds": "trainings of the same row with different seeds",
    "calls": "calls that the teacher served, a response",
    "requested": "tokens that those calls asked for, a response",
    "delivered": "tokens that the teacher wrote, a response",
    "read": "tokens that the teacher was given to read, a response",
    "prefilled": "those of them that it had to compute anew",
    "cached": "those of them that its prefix cache held",
    "student reads": "tokens of its contexts, a response; in parentheses those that are new to it",
    "student writes": "tokens that the student writes, a response",
    "teacher reads": "tokens of its contexts, a response; in parentheses those that no cache held",
    "teacher writes": "tokens that the teacher delivers, or that its API bills as written, a response",
    "student's FLOPs": "2 x parameters x tokens read anew or written, a response",
    "teacher's FLOPs": "2 x parameters x tokens read anew or written, a response",
    "money, 1,000 responses": "both models' tokens at the run's prices",
    "money of the teacher alone (%)": "the same over what the teacher alone would cost for responses of these lengths",
    "seconds": "time in which some response was under way",
    "wall time (s)": "time in which some response was under way",
    "p50 (s)": "median time of a response, among many at a time",
    "p95 (s)": "95 of 100 responses took no longer",
    "kappa": "agreement of the two verdicts beyond chance (Cohen); 1 is full agreement",
    "95% interval": "over questions or training seeds, as stated; equal answers have Wilson's interval",
    "interval over": "what varies in it: other questions, or other training seeds",
}
"""By the head of a column."""


def terms_of(heads: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The terms that stand in these heads, in the order of TERMS."""
    present = set(heads)
    return tuple((name, meaning) for name, meaning in TERMS.items() if name in present)
