"""The messages of a chat as a template gets them: one prompt, whichever way a table spells them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_verl.data.schema import is_messages, question_text
from relay_verl.messages import content_text, plain_messages
from relay_verl.tokenization import chat_ids
from tests.helpers.tokenizers import BPE_WORDS, make_bpe

NO_TOOLS = (  # as Llama 3's: a message with tool calls in it calls exactly one
    "{%- for m in messages %}{%- if 'tool_calls' in m %}{{ raise_exception('only one tool call') }}{%- endif %}"
    "{{ m.role }}: {{ m.content }}\n{%- endfor %}"
)


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_a_key_that_holds_nothing_is_not_there(nothing: Any) -> None:
    """A table gives every message the keys of all messages (vllm#14054)."""
    tokenizer = make_bpe(BPE_WORDS)
    tokenizer.chat_template = NO_TOOLS
    plain = [{"role": "user", "content": "7*8?"}]
    assert chat_ids(tokenizer, [{**plain[0], "tool_calls": nothing, "name": None}], {}) == chat_ids(
        tokenizer, plain, {}
    )


CONTENTS = [
    # content, its text
    ("7*8?", "7*8?"),
    ("", ""),
    ([{"type": "text", "text": "7*8?"}], "7*8?"),
    ([{"type": "text", "text": "7"}, {"type": "text", "text": "*8?"}], "7*8?"),
    ([{"text": "7*8?"}], "7*8?"),
    ([{"type": None, "text": "7*8?"}], "7*8?"),
    (["7*", "8?"], "7*8?"),
    (np.array([{"type": "text", "text": "7*8?"}], dtype=object), "7*8?"),
    (None, None),
    ([], None),
    ([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What is this?"}], None),
    ([{"type": "text", "text": None}], None),
    ({"text": "7*8?"}, None),
    (7, None),
]


@pytest.mark.parametrize(("content", "text"), CONTENTS, ids=[str(i) for i in range(len(CONTENTS))])
def test_the_text_of_a_content(content: Any, text: str | None) -> None:
    assert content_text(content) == text
    messages = [{"role": "user", "content": content}]
    assert is_messages(messages) == (text is not None)
    if text:
        assert question_text({"prompt": messages}) == text


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(ValueError, match="not a text or a list of text parts"):
        plain_messages([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()},
            optional={"tool_calls": st.sampled_from([None, [], [{"name": "f"}]]), "name": st.none() | st.text()},
        )
    ),
    st.data(),
)
def test_parts_are_the_text_they_are_cut_from(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    cut = []
    for message in messages:
        text = message["content"]
        place = data.draw(st.integers(0, len(text)))
        parts = [{"type": "text", "text": text[:place]}, {"type": "text", "text": text[place:]}]
        cut.append({**message, "content": parts})
    assert plain_messages(cut) == plain_messages(messages)
    assert plain_messages(plain_messages(messages)) == plain_messages(messages)
