"""Frames of messages between a client and an engine's process."""

import asyncio

import numpy as np
import pytest
from omegaconf import OmegaConf

from relay_verl.models.wire import Answer, Cancel, Request, read_frame, to_frame


async def read(data: bytes) -> list[object]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return list(await read_frame(reader))


async def test_a_frame_brings_what_was_sent() -> None:
    messages = [Request(1, "a", [5, 6], {"temperature": 1.0, "stop": ["</call>"]}), Cancel(1), Answer(1, [7], [-0.5])]
    assert await read(b"".join(to_frame(messages))) == messages


async def test_numbers_and_lists_of_other_libraries_travel_as_plain_ones() -> None:
    fields = {"global_steps": np.int64(3), "bad_words": OmegaConf.create(["<call>"])}
    [answer] = await read(b"".join(to_frame([Answer(1, [np.int32(7)], [np.float32(-0.5)], extra_fields=fields)])))
    assert answer == Answer(1, [7], [-0.5], extra_fields={"global_steps": 3, "bad_words": ["<call>"]})


@pytest.mark.parametrize("num_missing", [1, 4, 1000])
async def test_a_frame_that_breaks_off_is_an_end(num_missing: int) -> None:
    data = b"".join(to_frame([Request(1, "a", list(range(500)), {})]))
    with pytest.raises(EOFError):
        await read(data[:-num_missing])
