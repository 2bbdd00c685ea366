"""What to change in the address of an endpoint that answers 404, found by asking the same server at another path."""

from __future__ import annotations

from collections.abc import Mapping

from relay_verl.engines.address import root_of

HINT_TIMEOUT_S = 10.0
"""Most seconds for a look at what else an address may mean."""


async def find_hint(base_url: str, headers: Mapping[str, str], timeout_s: float) -> str:
    """The end of a sentence; empty if it is not known.

    Args:
        base_url: answers 404.
        headers: with the key.
        timeout_s: most seconds, but for `HINT_TIMEOUT_S`.
    """
    import httpx

    path = httpx.URL(base_url).path.rstrip("/")
    for ending in ("/chat/completions", "/completions", "/models"):
        if path.endswith(ending):
            return f"; leave out {ending}: {base_url.rstrip('/').removesuffix(ending)}"
    if path.endswith("/v1"):
        return ""
    candidate = f"{root_of(base_url)}/v1"
    try:
        async with httpx.AsyncClient(timeout=min(timeout_s, HINT_TIMEOUT_S)) as client:
            answer = await client.get(f"{candidate}/models", headers=dict(headers))
    except Exception:  # this is about another error, which it must not hide
        return ""
    return f"; add /v1: {candidate}" if answer.status_code in (200, 401, 403) else ""
