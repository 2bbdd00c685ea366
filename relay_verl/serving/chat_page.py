"""The chat page that a server shows at `/`: type, and see who writes which word.

Invariants: the page is one file and asks nothing but the server it came from, which its content security policy
enforces: its one style and its one script are known by their hashes, so that nothing a model writes can run. What
models and users write enters the page as text nodes only (`chat.js`). `chat_stream.js` reads the stream and counts; it
touches no element.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from relay_verl import pages, palette
from relay_verl.pages.parts import read_parts


@cache
def make_chat_page() -> str:
    """The page as HTML."""
    style = "\n".join([palette.to_css(), read_parts(pages.__name__, "marks.css"), read_parts(__package__, "chat.css")])
    script = read_parts(__package__, "chat_stream.js", "chat.js")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(read_parts(__package__, "chat.html"))
    return template.render(
        style=Markup(style), style_hash=_hash_of(style), script=Markup(script), script_hash=_hash_of(script)
    )


def _hash_of(source: str) -> str:
    """How a content security policy names an inline element with this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
