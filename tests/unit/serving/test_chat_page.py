"""The chat page as a file: one file, whose policy allows its own style and script and nothing else."""

import base64
import hashlib
import re

import pytest

from relay_verl.serving.chat_page import make_chat_page


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_names_what_is_inline(tag: str) -> None:
    page = make_chat_page()
    (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}'" in page


def test_the_page_names_no_other_address() -> None:
    page = make_chat_page()
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'; connect-src 'self'" in page
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
