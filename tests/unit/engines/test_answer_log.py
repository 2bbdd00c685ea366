"""The sums over later answers are those over a list of all answers, whatever is forgotten meanwhile."""

import math

from hypothesis import given
from hypothesis import strategies as st

from relay_verl.engines import answer_log
from relay_verl.engines.answer_log import AnswerLog, Later


def after(answers: list[tuple[float, float, int]], moment: float) -> Later:
    later = [answer for answer in answers if answer[0] > moment]
    first = min((answered_at for _, answered_at, _ in later), default=math.inf)
    return Later(first, sum(num for _, _, num in later), sum(end - start for start, end, _ in later))


@given(st.data(), st.integers(1, 5))
def test_it_is_the_plain_sum(data: st.DataObject, block: int) -> None:
    """Requests are sent in the order of their numbers and answered in any order; some are never answered."""
    steps = data.draw(st.lists(st.tuples(st.sampled_from(["send", "answer"]), st.integers(0, 3)), max_size=60))
    log, answers, now, num_sent = AnswerLog(), [], 0.0, 0
    waiting: list[tuple[int, float]] = []
    old_block, answer_log.BLOCK = answer_log.BLOCK, block
    try:
        for kind, seconds in steps:
            now += seconds
            if kind == "send":
                waiting.append((num_sent, now))
                num_sent += 1
            elif waiting:
                number, sent_at = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
                log.note(number, sent_at, now, 1 + number)
                answers.append((sent_at, now, 1 + number))
                log.forget(sent_at for _, sent_at in waiting)
            for _, sent_at in waiting:
                assert log.after(sent_at) == after(answers, sent_at)
    finally:
        answer_log.BLOCK = old_block


def test_what_no_request_may_ask_for_is_forgotten() -> None:
    log = AnswerLog()
    for number in range(100 * answer_log.BLOCK):
        log.note(number, float(number), number + 0.5, 1)
        log.forget([float(number)])
    assert len(log._blocks) <= 4
