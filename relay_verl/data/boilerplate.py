r"""Phrases that say how an answer is to be written, and nothing about the problem. Pure.

Invariant: what is left of a question's words is in their order, and stripping twice is stripping once.
"""

from __future__ import annotations

import re

_NAMES = r"[a-z](?: (?:and )?[a-z])*"
_ASK = (
    r"(?:please )?(?:find|compute|provide|give|calculate|determine|submit|evaluate|what is|enter|report)"
    r"(?: (?:me )?the (?:final )?(?:value|sum) of)?"
)
_ASKED = (
    # m/n with m and n relatively prime: find m+n
    r"(?:(?:if )?(?:the|its|this) (?:answer|probability|value|result|sum|expected value) )?(?:can be |is )?"
    r"(?:expressed|written)(?: uniquely)? (?:as|in the form)(?: a fraction| the fraction)?"
    r"(?: in (?:lowest|simplest) (?:terms|form))? [a-z] / [a-z]",
    r"(?:in|of) the form [a-z] / [a-z]|as an irreducible fraction [a-z] / [a-z]",
    rf"(?:where|with|for|and)(?: some)?(?: (?:positive )?integers?)? {_NAMES} (?:are|being)?"
    r"(?: (?:both|positive|pairwise|integers|and))*"
    r" ?(?:relatively prime|coprime|mutually prime)(?: (?:positive|integers|numbers|natural))*",
    rf"(?:for|where) (?:relatively prime|coprime)(?: positive)?(?: integers)? {_NAMES}",
    r"where gcd [a-z] [a-z] = 1",
    rf"{_ASK} (?:\d+ )?[a-z](?: \+ (?:\d+ )?[a-z])+",
    # DAPO-Math-17k turns every answer into an integer
    r"the (?:original )?answer is in(?: the)?(?: form)?(?: (?:[a-z]|\d+|[-+/*^√π]))+(?: (?:form|format))?",
    r"原 始 的? ?答 案 是(?: \S+){1,15}? 形 式(?: 其 中(?: \S+){1,8}? 互 质 的)?",
    r"请 给 出(?: 最 终)?(?: [a-z+]| 的)+ 值",
)
"""What is asked for in place of the answer."""
_FORM = (
    r"(?:please )?(?:express|give|enter|write|leave|provide|format|submit|round|state|report)"
    r"(?: (?:your|the|all))?(?: final)? (?:answers?|result)(?: (?:as|in|to|with|using|rounded|correct|by))+"
    r"(?: (?:a|an|the|its|your|simplest|simplified|lowest|reduced|exact|common|proper|improper|mixed|nearest|single|"
    r"decimal|percentage|percent|integer|fraction|fractions|radical|interval|scientific|form|terms|notation|number|"
    r"places?|tenths?|hundredths?|thousandths?|significant|figures|digits|of|to|in|and|or|commas?|separated|"
    r"whole|ordered|pair|triple|base|%|\d+))+",
    r"round(?:ed)?(?: off)? to (?:the )?(?:nearest )?(?:\d+ )?(?:decimal places?|tenth|hundredth|thousandth|integer|"
    r"whole number|significant figures)",
    r"please format your answer as n \* 10 \^ x where n is to \d+ decimal places?",
    r"show your work|do not use a calculator|justify your answer|no calculators? (?:is|are) allowed",
    r"let s think step by step|please reason step by step",
)
"""How the answer is to be written."""


def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?<!\S)(?:{phrase})(?!\S)" for phrase in phrases))


_FORM_ONLY, _ALL = _any_of(_FORM), _any_of((*_ASKED, *_FORM))
_IN_EACH_FORM = frozenset(
    ("answer", "answers", "result", "round", "rounded", "work", "calculator", "calculators", "step")
)
_IN_EACH = _IN_EACH_FORM | frozenset(("+", "/", "prime", "coprime", "gcd", "形", "请"))
"""Each phrase has one of these words, which is faster to see."""


def without_format(words: list[str]) -> list[str]:
    """The words without phrases on how the answer is to be written.

    >>> " ".join(without_format("find 1 / 2 + 1 / 3 express your answer as a common fraction".split()))
    'find 1 / 2 + 1 / 3'
    """
    return words if _IN_EACH_FORM.isdisjoint(words) else _without(_FORM_ONLY, words)


def without_boilerplate(words: list[str]) -> list[str]:
    """The words without those, and without what is asked for in place of the answer.

    >>> " ".join(without_boilerplate("the area is m / n where m and n are coprime integers find m + n".split()))
    'the area is m / n'
    """
    return words if _IN_EACH.isdisjoint(words) else _without(_ALL, words)


def _without(phrases: re.Pattern[str], words: list[str]) -> list[str]:
    text = " ".join(words)
    # What is left may join to a phrase of its own, such as a list of requests.
    while (shorter := " ".join(phrases.sub(" ", text).split())) != text:
        text = shorter
    return text.split()
