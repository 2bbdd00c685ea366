"""Prints a text while it is written, the teacher's words in blue and the student's commands dimmed.

python examples/python/stream.py STUDENT TEACHER PROMPT
"""

import argparse

from relay_verl import RelayPair

BLUE, DIM, PLAIN = "\033[34m", "\033[2m", "\033[0m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="folder, hub id or URL")
    parser.add_argument("teacher", help="the same")
    parser.add_argument("prompt", help="a question")
    args = parser.parse_args()
    with RelayPair.load(args.student, args.teacher) as pair:
        stream = pair.stream(args.prompt, show_commands=True)
        for delta in stream:
            colour = DIM if delta.kind == "command" else BLUE if delta.source == "teacher" else PLAIN
            print(f"{colour}{delta.text}{PLAIN}", end="", flush=True)
        usage = stream.result().usage
    print(f"\n{usage['teacher_tokens']} tokens by the teacher, {usage['student_tokens']} by the student")


if __name__ == "__main__":
    main()
