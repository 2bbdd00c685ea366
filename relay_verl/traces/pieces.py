"""A response cut into pieces to show: what the student wrote, what the teacher wrote, and each call. Pure.

Invariant: the texts of the pieces joined are the response. A command is paired with its `CallText` by order: the
decoder records well-formed commands in the order of the text (a malformed one is not a command and stays plain text). A
call without a command, as the baselines make them, has no text and stands before the teacher's tokens that it got.

Why a call got fewer tokens than it asked for follows from the response itself (`decoder`): an end of text ends it, a
response that ends behind the teacher's tokens was full, and a response that continues was cut by `max_tokens_per_call`.
"""

from __future__ import annotations

import re

from relay_verl.protocol import find_calls
from relay_verl.traces.records import CallText, ResponseRecord
from relay_verl.types import CallOutcome

_WHY_UNSERVED: dict[str, str] = {
    CallOutcome.FAILED: "the teacher failed",
    CallOutcome.ZERO: "nothing to ask for",
    CallOutcome.OVER_LIMIT: "no call was left or allowed",
}


CALL_LIMIT, FULL, ENDED, STOPPED = "call limit", "response full", "end of text", "teacher stopped"
CUT_REASONS = {
    CALL_LIMIT: "cut by max_tokens_per_call, the most that one call may deliver",
    FULL: "cut by the response's own limit",
    ENDED: "the teacher ended the response",
    STOPPED: "the teacher stopped by itself",
}
"""Why a call got fewer tokens than it asked for, in words."""
_END_TOKENS = re.compile(r"(?:<\|[A-Za-z_]+\|>|</s>|<eos>|<end_of_turn>|<｜end▁of▁sentence｜>|<EOT>)+\s*\Z")
"""Tokens at the end of a text by which tokenizers spell its end, such as <|im_end|>."""


def make_pieces(record: ResponseRecord) -> list[dict[str, str]]:
    """The response in pieces of kind 'student', 'teacher', 'call' or 'end', each with its `text`.

    A teacher's piece has a `tip` that says its length. A call has its `outcome` ('' if none is recorded), a `note` such
    as '12 of 20' (tokens delivered, of those asked for) or 'failed', and a `tip` that says it in full; one that was
    delivered less than it asked for has the reason as `cut`, a key of CUT_REASONS. The end is what ends a text.
    """
    pieces = _split(record)
    if pieces and pieces[-1]["kind"] in ("student", "teacher") and (end := _END_TOKENS.search(pieces[-1]["text"])):
        *others, last = pieces
        rest = [{**last, "text": last["text"][: end.start()]}] if end.start() else []
        return [*others, *rest, {"kind": "end", "text": end[0], "tip": f"end of the text: {end[0].strip()}"}]
    return pieces


def _split(record: ResponseRecord) -> list[dict[str, str]]:
    fates = [call for call in record.calls if call["outcome"] != CallOutcome.MALFORMED]
    commands = iter([call for call in fates if call["has_command"]])
    others = [call for call in fates if not call["has_command"]]
    pieces: list[dict[str, str]] = []
    num_tokens = 0
    most = max((call["num_delivered"] for call in fates), default=0)
    for index, segment in enumerate(record.segments):
        text, end = segment["text"], 0
        num_tokens += segment["num_tokens"]
        if segment["source"] == "teacher":
            while others and others[0]["position"] < num_tokens:
                fate = _tell_fate(others.pop(0), _find_cut(record, index, most))
                pieces.append({"kind": "call", "text": "", **fate})
            pieces.append({"kind": "teacher", "text": text, "tip": f"teacher: {segment['num_tokens']} tokens"})
            continue
        for command in find_calls(text):
            pieces.append({"kind": "student", "text": text[end : command.start]})
            call = next(commands, None)
            cut = _find_cut(record, index + 1, most)
            fate = _tell_fate(call, cut) if call else _tell_unrecorded(command.num_tokens)
            pieces.append({"kind": "call", "text": text[command.start : command.end], **fate})
            end = command.end
        pieces.append({"kind": "student", "text": text[end:]})
    pieces += [{"kind": "call", "text": "", **_tell_fate(call)} for call in others]
    return [piece for piece in pieces if piece["text"] or piece["kind"] == "call"]


def _find_cut(record: ResponseRecord, index: int, most: int) -> str:
    """Why a call got no more than segment `index`; `most` is what the response's longest answer has."""
    segments = record.segments
    if index >= len(segments):
        return ""
    if index == len(segments) - 1:
        return ENDED if _END_TOKENS.search(segments[index]["text"]) else FULL
    # an answer that is shorter than another one did not reach the limit that both had
    return CALL_LIMIT if segments[index]["num_tokens"] >= most else STOPPED


def _tell_fate(call: CallText, cut: str = "") -> dict[str, str]:
    outcome, asked, delivered = call["outcome"], call["num_requested"], call["num_delivered"]
    tip = f"asked {asked}, delivered {delivered} tokens"
    if not call["has_command"]:
        tip = f"no command of the student's: {tip}"
    if outcome == CallOutcome.SERVED:
        fate = {"outcome": outcome, "note": f"{delivered} of {asked}", "tip": f"{tip}, {call['latency_s']:.2f} s"}
        return {**fate, "cut": cut} if cut and delivered < asked else fate
    why = _WHY_UNSERVED.get(outcome, outcome)
    return {"outcome": outcome, "note": outcome.replace("_", " "), "tip": f"{tip}: {why}"}


def _tell_unrecorded(num_written: int) -> dict[str, str]:
    tip = f"asked {num_written}, delivered 0 tokens: the response was full"
    return {"outcome": "", "note": "not served", "tip": tip}
