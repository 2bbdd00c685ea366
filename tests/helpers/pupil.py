"""A pair for tests of what people see: the question says what the student does."""

from tests.helpers.serving import RuleEngine, text_of

LONG = "I write and write. " * 400
WORD = "x" * 400
HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>\x1b[31m\u2028"
TEACHER = "that is 56"
NUM_ASKED = len(TEACHER)  # its characters are tokens of their own
END = " So it is \\boxed{56}."


def write(token_ids: list[int]) -> str:
    """What the student continues a context with."""
    said, _, written = text_of(token_ids).rpartition("assistant:")
    question = said.rpartition("user: ")[2].strip()
    if "long" in question:
        return LONG
    if "hostile" in question:
        return HOSTILE
    if "</call>" in written:
        return f" {WORD}." if "word" in question else END
    return f"I ask. <call>{NUM_ASKED}</call>" if "ask" in question or "word" in question else "I know: 56."


def make_engines(*, delay_s: float = 0.0) -> tuple[RuleEngine, RuleEngine]:
    """The student and its teacher."""
    return RuleEngine(write, delay_s=delay_s), RuleEngine(lambda _: f"{TEACHER} and more", delay_s=delay_s)
