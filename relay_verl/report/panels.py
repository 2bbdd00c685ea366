"""What the six panels of a training's curves show: metrics of our log, their units, and whose colour each has."""

from __future__ import annotations

from dataclasses import dataclass

from relay_verl.pictures import NEITHER, RELAY, STUDENT, TEACHER


@dataclass(frozen=True)
class Series:
    """One metric in a panel."""

    metric: str
    """Its name in the log."""
    label: str
    """Its name in the legend."""
    colour: str
    """Where it does not tell runs apart."""
    validation: str = ""
    """What verl's validation calls the same quantity; empty where it has none."""


@dataclass(frozen=True)
class Panel:
    """One of the six pictures."""

    title: str
    ylabel: str
    """What the vertical axis shows, with its unit."""
    series: tuple[Series, ...]
    is_share: bool = False
    """Values between 0 and 1, shown as percentages."""
    is_whole: bool = False
    """The axis covers 0 to 100%."""
    is_stacked: bool = False
    """The series are shares of one whole."""


ACCURACY = "Accuracy"
"""Title of the panel that reference lines are drawn in."""

PANELS = (
    Panel(
        ACCURACY,
        "training questions right by rule (%)",
        (Series("relay/accuracy", "training questions", RELAY, validation="acc"),),
        True,
        True,
    ),
    Panel(
        "Call rate",
        "responses that call (%)",
        (Series("relay/call_rate", "training questions", STUDENT, validation="call_rate"),),
        True,
        True,
    ),
    Panel(
        "Call ratio",
        "teacher's share of tokens (%)",
        (Series("relay/call_ratio", "training questions", TEACHER, validation="call_ratio"),),
        True,
    ),
    Panel(
        "Teacher tokens",
        "tokens per response",
        (
            Series("relay/requested_tokens", "requested by the student", STUDENT),
            Series("relay/delivered_tokens", "delivered by the teacher", TEACHER),
        ),
    ),
    Panel(
        "Scenarios",
        "questions (%)",
        (
            Series("relay/scenario/student_solvable", "right without a call", STUDENT),
            Series("relay/scenario/teacher_dependent", "right only with a call", TEACHER),
            Series("relay/scenario/teacher_unsolvable", "never right", NEITHER),
        ),
        True,
        True,
        True,
    ),
    Panel("Reward", "mean reward per response", (Series("critic/score/mean", "reward", RELAY),)),
)
