"""What a model card says of a training, in words: its settings, its numbers, its command. Pure.

Invariant: nothing that comes out names a folder of the machine or an address of its network: of a path its last part
stays, of a URL its scheme.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NAME = r"[^\s/,'\"\[\](){}=|;&]+"
_PATH = re.compile(rf"(?:file:/*(?=/)|(?<![\w.$}}/-]))(?:~|\.{{1,2}})?/(?!/){_NAME}(?:/+{_NAME})*/?")
_QUOTED = re.compile(r"(['\"])((?:file:)?(?:~|\.{1,2})?/[^'\"]*)\1")
_BARE = re.compile(r"([^=]+=)((?:file:)?(?:~|\.{1,2})?/[^,'\"\[\]{}]*)")
"""An override whose value is one path, blanks and all."""
_URL = re.compile(r"\b(https?|grpc|tcp)://[^\s,'\"\[\](){}]+")
_OWN_FOLDERS = ("trainer.default_local_dir", "hydra.run.dir", "hydra.sweep.dir", "trainer.resume_from_path")
"""Overrides that say where a run's files go, which no other run needs."""


def without_paths(text: str) -> str:
    """The text with the last part of each path, and without the hosts of URLs.

    >>> without_paths("data.train_files=[/data/me/a.parquet,'/data/b.parquet']")
    "data.train_files=[a.parquet,'b.parquet']"
    >>> without_paths("relay.teacher.path=Qwen/Qwen3-8B relay.teacher.base_url=http://10.0.0.7:8000/v1")
    'relay.teacher.path=Qwen/Qwen3-8B relay.teacher.base_url=http://HOST'
    """
    hidden = _URL.sub(lambda url: f"{url[1]}://HOST", text)
    hidden = _QUOTED.sub(lambda quoted: f"{quoted[1]}{_last_part(quoted[2])}{quoted[1]}", hidden)
    return _PATH.sub(lambda path: _last_part(path[0]), hidden)


def _last_part(path: str) -> str:
    return re.split(r"/+", path.rstrip("/"))[-1]


def command_of(overrides: Sequence[str]) -> str:
    """The command of a training, for another machine."""
    kept = [_shown(override) for override in overrides if not override.lstrip("+~'\"").startswith(_OWN_FOLDERS)]
    return " ".join(["python -m verl.trainer.main_ppo", *kept])


def _shown(override: str) -> str:
    """An override for the command line: a shell reads it as one word."""
    bare = override[1:-1] if override[:1] in ("'", '"') and override[:1] == override[-1:] else override
    path = _BARE.fullmatch(bare)
    return shlex.quote(f"{path[1]}{_last_part(path[2])}" if path else without_paths(bare))


def settings_of(config: Mapping[str, Any]) -> list[str]:
    """How the student was trained and how it is to be used, a sentence each, as far as the record says it."""
    get = config.get
    lines = []
    if (policy := get("relay.policy")) and policy != "learned":
        lines.append(f"calls follow the policy `{policy}`")
    if "relay.max_calls" in config:
        calls = get("relay.max_calls")
        lines.append("a response may call without limit" if calls is None else f"a response may call {_times(calls)}")
    if (most := get("relay.max_tokens_per_call")) is not None:
        lines.append(f"a call delivers at most {most:,} tokens, whatever it asks for")
    if (longest := get("data.max_response_length")) is not None:
        lines.append(f"a response has at most {longest:,} tokens")
    if reward := _reward(config):
        lines.append(reward)
    if (rate := get("relay.filter.min_pass_rate")) is not None:
        lines.append(
            f"trained on questions that the teacher solves in at least {100 * rate:g}% of its samples"
            if rate
            else "trained on all questions, without the teacher's filter"
        )
    if (train := get("relay.train_on_teacher_tokens")) is not None:
        lines.append(f"the teacher's tokens are {'' if train else 'not '}trained on")
    if files := get("data.train_files"):
        names = [files] if isinstance(files, str) else list(files)
        lines.append(f"data: {', '.join(f'`{Path(str(name)).name}`' for name in names)}")
    return lines


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"up to {number} times")


def _reward(config: Mapping[str, Any]) -> str | None:
    get = config.get
    charged = {"delivered": "tokens that the teacher delivered", "requested": "tokens that were asked for"}
    charge = charged.get(str(get("relay.reward.charge")), "the teacher's tokens")
    match get("relay.reward.kind"):
        case None:
            return None
        case "simple":
            return f"reward: 1 for a right answer, less the share of {charge}"
        case "difficulty_aware":
            parts = [f"1 for a right answer, less the share of {charge}"]
            if bonus := get("relay.reward.independence_bonus"):
                parts.append(f"{bonus:g} more without a call")
            if penalty := get("relay.reward.stubbornness_penalty"):
                parts.append(f"-{penalty:g} for a wrong answer without a call where a call helps")
            if get("relay.reward.exploration"):
                parts.append("a little for calls where nothing helps")
            return f"reward by difficulty: {', '.join(parts)}"
        case kind:
            return f"reward: `{without_paths(str(kind))}`"


_NUMBERS = {
    "relay/accuracy": ("right answers", 100, "%"),
    "relay/call_rate": ("responses that call", 100, "%"),
    "relay/call_ratio": ("the teacher's share of the tokens", 100, "%"),
    "relay/delivered_tokens": ("the teacher's tokens in a response", 1, ""),
}
_VALIDATION = re.compile(r"val-(?:core|aux)/(?P<source>.+)/acc/mean@(?P<samples>\d+)")


def numbers_of(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """The few numbers of a step that say how good the student is: on its training questions, and in validation."""
    rows = [
        (f"{words}, training questions of this step", f"{factor * metrics[key]:.4g}{unit}")
        for key, (words, factor, unit) in _NUMBERS.items()
        if key in metrics
    ]
    for key in sorted(metrics):
        if match := _VALIDATION.fullmatch(key):
            times = "" if match["samples"] == "1" else f", mean of {match['samples']} samples"
            rows.append((f"right answers, validation on {match['source']}{times}", f"{100 * metrics[key]:.4g}%"))
    return rows
