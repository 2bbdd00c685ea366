r"""The process that decides whether two mathematical answers are equal; `relay_verl.grading.crew` asks it.

Paper: RelayLLM (arXiv 2601.05167), section 3.2.1, the rule-based verifier. `relay_verl.grading` is the way in.

Invariant: one question in, one reply out, and nothing else ever reaches stdout. A question that hangs is ended from
outside by its asker; if the asker is gone too, the kernel's alarm ends it.

`python -m relay_verl.grading.math_worker` speaks JSON lines on stdin and stdout, one question at a time:

    worker  {"is_ready": true}                                                         once, after its imports
    asker   {"answer": "\\frac12", "ground_truth": "0.5", "timeout_s": 5.0}
    worker  {"is_started": true}                                                       the question is read
    worker  {"is_correct": true, "should_retire": false}                               or {"error": "..."}

`should_retire` asks for a fresh process: sympy and antlr keep caches that only grow.
The process ends when its stdin does, or when its parent is another process than at the start.
"""

import contextlib
import json
import logging
import os
import resource
import select
import signal
from typing import BinaryIO

from relay_verl.grading.equivalence import is_equivalent

MEMORY_LIMIT_BYTES = 4 << 30
"""Address space of the process; an answer that needs more fails to parse and is not equal to anything."""
RETIRE_AFTER_NUM_ANSWERS = 2000
"""Answers after which the process asks to be replaced."""
ALARM_MARGIN_S = 1.0
"""How long after the asker's own deadline the kernel ends the process."""
PARENT_CHECK_PERIOD_S = 2.0
"""How often an idle worker looks for its parent: a forked copy of the parent can keep stdin open after its death."""


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
        signal.setitimer(signal.ITIMER_REAL, question["timeout_s"] + ALARM_MARGIN_S)
        try:
            is_correct = is_equivalent(question["answer"], question["ground_truth"])
        except Exception as error:  # the answer is arbitrary text, and the libraries promise no error types
            outcome: dict[str, object] = {"error": repr(error)[:200]}
        else:
            num_answers += 1
            outcome = {"is_correct": is_correct, "should_retire": num_answers >= RETIRE_AFTER_NUM_ANSWERS}
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply(**outcome)


def main() -> None:
    """Keep stdout for the protocol, set the limits, warm up, serve."""
    questions = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside one long big-integer operation
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    for limit, value in ((resource.RLIMIT_AS, MEMORY_LIMIT_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS knows no RLIMIT_AS
            resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    is_equivalent(r"\frac{1}{2}", "0.5")
    os.dup2(nowhere, 2)  # start-up errors are on stderr; from here on it holds only what parsers say of bad answers
    serve(questions, replies)


if __name__ == "__main__":
    main()
