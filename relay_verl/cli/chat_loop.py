"""A chat on a terminal: lines in, answers out, and what a line that begins with / changes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace

from relay_verl.cli.reply_screen import ReplyScreen
from relay_verl.errors import RelayError, suggest
from relay_verl.pair.talk import Pair, Question, Reply
from relay_verl.serving.aliases import policy_of_model
from relay_verl.serving.api_error import ApiError

HELP = """/budget N     the teacher writes at most N tokens of an answer; /budget off for no limit
/alias NAME   who writes: teacher-free, student, teacher, fixed-N; /alias off for the pair as it was trained
/clear        forget the chat so far
/help         this list
/quit         end; Ctrl-D, too. Ctrl-C stops an answer"""
OFF = "off"
MAX_BUDGET = 10**9


class ChatLoop:
    """Reads lines until there are no more, and answers them.

    Args:
        pair: answers.
        runner: its event loop.
        asked: what each question is asked with; its messages open the chat.
        name: the pair's name, without an alias.
        screen: where it is shown.
    """

    def __init__(self, pair: Pair, runner: asyncio.Runner, asked: Question, name: str, screen: ReplyScreen):
        self._pair, self._runner, self._screen, self._name = pair, runner, screen, name
        self._asked = asked
        self._opening = list(asked.messages)
        self._commands: dict[str, Callable[[str], None]] = {
            "/budget": self._set_budget,
            "/alias": self._set_alias,
            "/clear": self._clear,
            "/help": lambda _: self._screen.say(HELP),
        }

    def run(self) -> None:
        """Chat until /quit or the end of the input."""
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            import readline  # noqa: F401 (input() then edits lines and remembers them)

            self._screen.say(f"{self._asked.model}; /help lists what you can change")
        while True:
            try:
                line = input("> " if is_terminal else "").strip()
            except (EOFError, KeyboardInterrupt):
                return
            word, _, value = line.partition(" ")
            if word == "/quit":
                return
            if word.startswith("/"):
                self._obey(word, value.strip())
            elif line:
                self._answer(line)

    # ---- answers ----

    def _answer(self, text: str) -> None:
        messages = [*self._asked.messages, {"role": "user", "content": text}]
        note = ""
        try:
            reply = self._pair.ask(replace(self._asked, messages=messages))
            self._runner.run(self._write(reply))
        except KeyboardInterrupt:
            note = "stopped"
        except RelayError as error:
            # the turn is left out: the next question does not build on it
            self._screen.say(str(error), "red")
            return
        self._screen.finish(reply, note)
        if reply.text:
            self._asked = replace(self._asked, messages=[*messages, {"role": "assistant", "content": reply.text}])

    async def _write(self, reply: Reply) -> None:
        try:
            async for piece in reply:
                self._screen.show(piece)
        finally:
            if reply.pieces:
                self._screen.end_line()

    # ---- commands ----

    def _obey(self, word: str, value: str) -> None:
        if word in self._commands:
            self._commands[word](value)
        else:
            known = [*self._commands, "/quit"]
            self._screen.say(f"{word}: allowed: {', '.join(known)}{suggest(word, known)}", "red")

    def _set_budget(self, value: str) -> None:
        if value == OFF:
            self._asked = replace(self._asked, max_teacher_tokens=None)
        elif value.isascii() and value.isdigit() and int(value) <= MAX_BUDGET:
            self._asked = replace(self._asked, max_teacher_tokens=int(value))
        elif value:
            self._screen.say(f"/budget {value}: expected a number of tokens, or {OFF}", "red")
            return
        budget = self._asked.max_teacher_tokens
        self._screen.say(f"teacher's tokens an answer: {'no limit' if budget is None else f'at most {budget}'}")

    def _set_alias(self, value: str) -> None:
        if value:
            model = self._name if value == OFF else f"{self._name}:{value}"
            try:
                policy_of_model(model, self._name, has_teacher=True)
            except ApiError as error:
                self._screen.say(f"/alias {value}: {error}", "red")
                return
            self._asked = replace(self._asked, model=model)
        self._screen.say(f"model: {self._asked.model}")

    def _clear(self, _: str) -> None:
        self._asked = replace(self._asked, messages=self._opening)
        self._screen.say("the chat is empty")
