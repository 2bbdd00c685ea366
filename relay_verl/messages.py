"""The messages of a chat, as a chat template gets them. Pure.

Invariant: a chat is one prompt, whichever way its texts are spelled. Chat templates of text models print a list of
parts as Python shows it, so the parts are joined before a template reads them, in training and everywhere else. A table
has each key that one of its messages has in all of them, as null or as an empty list; a template may take a message
with `tool_calls` in it for one that calls a tool, so keys that hold nothing are left out.

    {"role": "user", "content": "What is 7*8?"}
    {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "7*8?"}]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def content_text(content: object) -> str | None:
    """A content's text; None if it has none, or a part that is not text, such as an image.

    >>> content_text("7*8?"), content_text([{"type": "text", "text": "7"}, {"type": "text", "text": "*8?"}])
    ('7*8?', '7*8?')
    >>> content_text(None), content_text([]), content_text([{"type": "image", "image": "a.png"}])
    (None, None, None)
    """
    if hasattr(content, "tolist"):  # an array of a dataset, without importing numpy
        content = content.tolist()
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not content:
        return None
    texts = [_part_text(part) for part in content]
    return None if None in texts else "".join(text for text in texts if text is not None)


def text_of(content: object) -> str:
    """The content as text: parts joined, a part that is not text by its type in brackets, '' for null.

    >>> text_of("7*8?"), text_of([{"type": "text", "text": "7*"}, {"type": "image"}, {"text": "8?"}]), text_of(None)
    ('7*8?', '7*[image]8?', '')
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        text = content.get("text")
        return text if isinstance(text, str) else f"[{content.get('type') or 'part'}]"
    if isinstance(content, Iterable):
        return "".join(map(text_of, content))
    return str(content)


def plain_messages(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with each list of text parts as one text, and without keys that hold nothing.

    Raises:
        ValueError: a content has parts that are not text, such as an image.

    >>> plain_messages([{"role": "user", "content": [{"type": "text", "text": "7*8?"}], "tool_calls": None}])
    [{'role': 'user', 'content': '7*8?'}]
    """
    plain = []
    for message in messages:
        filled = {key: value for key, value in message.items() if key == "content" or not _is_nothing(value)}
        content = filled.get("content")
        if content is not None and (text := content_text(content)) is None:
            raise ValueError(f"a message's content is not a text or a list of text parts: {content!r:.80}")
        plain.append(filled if content is None else {**filled, "content": text})
    return plain


def _is_nothing(value: object) -> bool:
    """Whether a table holds this where a message has no such key."""
    return value is None or (isinstance(value, list | tuple) and not value)


def _part_text(part: object) -> str | None:
    """The text of a part: a text itself, or an object that says that it is one."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or part.get("type", "text") not in ("text", None):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None
