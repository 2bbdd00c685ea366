r"""The process that decides whether two mathematical answers are equal; `relay_verl.grading.crew` asks it.

Paper: RelayLLM (arXiv 2601.05167), section 3.2.1, the rule-based verifier. `relay_verl.grading` is the way in.

Invariant: one question in, one reply out, and nothing else ever reaches stdout. A question may use `cpu_timeout_s`
seconds of processor time; then the kernel ends the process (SIGPROF), also inside one long big-integer operation. So a
verdict does not depend on what else the machine does.

`python -m relay_verl.grading.math_worker` speaks JSON lines on stdin and stdout, one question at a time:

    worker  {"is_ready": true}                                                    once, after `warm_up`
    asker   {"task": "is_equivalent", "arguments": ["\\frac12", "0.5"], "cpu_timeout_s": 5.0}
    worker  {"is_started": true}                                                  the question is read
    worker  {"result": true, "should_retire": false}                              or {"error": "..."}

`should_retire` asks for a fresh process, which bounds whatever the libraries keep.
The process ends when its stdin does, or when its parent is another process than at the start.
"""

import contextlib
import json
import logging
import os
import resource
import select
import signal
from collections.abc import Callable
from typing import BinaryIO

from relay_verl.grading import equivalence

MEMORY_LIMIT_BYTES = 4 << 30
"""Address space of the process; an answer that needs more fails to parse and is not equal to anything."""
RETIRE_AFTER_NUM_ANSWERS = 2000
"""Answers after which the process asks to be replaced."""
PARENT_CHECK_PERIOD_S = 2.0
"""How often an idle worker looks for its parent: a forked copy of the parent can keep stdin open after its death."""

TASKS: dict[str, Callable[..., bool]] = {
    "is_equivalent": equivalence.is_equivalent,
    "is_readable": equivalence.is_readable,
}
"""What may be asked."""
_WARM_UP = (
    (r"\frac{1}{2}", "0.5"),
    (r"(1,2)\cup[3,\infty)", r"x>1"),
    (r"\{1,\sqrt{2}\}", r"\{2,\pi\}"),
    ("y=2x+1", "2y-4x=3"),
    (r"x^2+2x+1", "(x+1)^3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
    (r"\sin(x)^2+\log_2 3", r"1-\cos(x)"),
    (r"\binom{5}{2}+3!", "15"),
    (r"50\%", "0.4"),
)
"""A pair for each part that is slow the first time: intervals, sets, equations, matrices, functions."""


def serve(questions: BinaryIO, replies: BinaryIO) -> None:
    """Answer questions until stdin ends or the parent is gone."""

    def reply(**fields: object) -> None:
        replies.write(json.dumps(fields).encode() + b"\n")
        replies.flush()

    parent_pid, num_answers = os.getppid(), 0
    reply(is_ready=True)
    while True:
        while not select.select([questions], [], [], PARENT_CHECK_PERIOD_S)[0]:
            if os.getppid() != parent_pid:
                return
        line = questions.readline()
        if not line:
            return
        question = json.loads(line)
        reply(is_started=True)
        signal.setitimer(signal.ITIMER_PROF, question["cpu_timeout_s"])
        try:
            result = TASKS[question["task"]](*question["arguments"])
        except Exception as error:  # the answer is arbitrary text, and the libraries promise no error types
            outcome: dict[str, object] = {"error": repr(error)[:200]}
        else:
            num_answers += 1
            outcome = {"result": result, "should_retire": num_answers >= RETIRE_AFTER_NUM_ANSWERS}
        signal.setitimer(signal.ITIMER_PROF, 0)
        reply(**outcome)


def warm_up() -> None:
    """Use what is slow the first time, so that no question pays for it."""
    for answer, ground_truth in _WARM_UP:
        equivalence.is_equivalent(answer, ground_truth)


def main() -> None:
    """Keep stdout for the protocol, set the limits, warm up, serve."""
    questions = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the kernel's own handler ends the process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    for limit, value in ((resource.RLIMIT_AS, MEMORY_LIMIT_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS knows no RLIMIT_AS
            resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    warm_up()
    os.dup2(nowhere, 2)  # start-up errors are on stderr; from here on it holds only what parsers say of bad answers
    serve(questions, replies)


if __name__ == "__main__":
    main()
