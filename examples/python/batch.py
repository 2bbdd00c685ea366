"""Writes a text for each prompt and prints a line of JSON for each: the text, and what it cost.

python examples/python/batch.py STUDENT TEACHER PROMPT [PROMPT ...]
"""

import argparse
import json

from relay_verl import RelayPair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="folder, hub id or URL")
    parser.add_argument("teacher", help="the same")
    parser.add_argument("prompts", nargs="+", help="questions")
    parser.add_argument("--engine", default="transformers", help="transformers, or vllm for speed")
    parser.add_argument("--max-teacher-tokens", type=int, help="most tokens that the teacher writes in a text")
    args = parser.parse_args()
    with RelayPair.load(args.student, args.teacher, engine=args.engine) as pair:
        texts = pair.generate(args.prompts, max_teacher_tokens=args.max_teacher_tokens, seed=0)
        for prompt, text in zip(args.prompts, texts, strict=True):
            row = {"prompt": prompt, "text": text.text, "finish_reason": text.finish_reason, "error": text.error}
            print(json.dumps(row | text.usage))


if __name__ == "__main__":
    main()
