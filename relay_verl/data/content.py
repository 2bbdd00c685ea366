"""The content of a chat message as text. Pure.

A chat template takes a text, or a list of parts `{"type": "text", "text": ...}`; some datasets have null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


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
