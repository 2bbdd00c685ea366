"""A teacher of your own: any object with `async def generate`, which takes token ids and gives token ids.

    python examples/python/own_engine.py STUDENT

This one looks its words up. It shares the student's tokenizer, checks nothing and retries nothing: deadlines, retries
and the check of what it answers are relay_verl's. A bug in it is raised as it is.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer

from relay_verl import RelayPair
from relay_verl.engines import Generation, TransformersEngine


class Phrasebook:
    """Continues every text with the same words."""

    def __init__(self, tokenizer: Any, words: str):
        self.ids: list[int] = tokenizer.encode(words, add_special_tokens=False)

    async def generate(
        self,
        prompt_ids: list[int],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] = {},
        request_id: str | None = None,
    ) -> Generation:
        """At most `max_tokens` tokens; 'length' says that there are more, 'eos' would end the response."""
        return Generation(self.ids[:max_tokens], None, "length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="folder or hub id")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.student)
    student = TransformersEngine.load(args.student, tokenizer)
    teacher = Phrasebook(tokenizer, "it is 56, since 7*8=56")
    with RelayPair(student, teacher, tokenizer, max_model_len=student.max_model_len) as pair:
        [text] = pair.generate("What is 7*8?", max_tokens=64, show_commands=True)
        print(text, text.usage)
    student.close()


if __name__ == "__main__":
    main()
