"""The address of an OpenAI-compatible endpoint: whether it can be one, its root, and the proxy on the way to it. Pure.

Invariant: no text of this module repeats a key or a password, wherever in an address it stands.
"""

from __future__ import annotations

from urllib.request import getproxies, proxy_bypass

from relay_verl.secrets import holds_secret


def check_address(url: str, api_key_env: str) -> None:
    """Raise ValueError, which says what is wrong, unless `url` can be the address of an endpoint.

    Args:
        url: such as http://127.0.0.1:8000/v1 or http://[::1]:8000/v1.
        api_key_env: environment variable in which a key belongs.
    """
    import httpx

    if holds_secret(url):
        raise ValueError(f"the address holds a key or a query; a key goes in {api_key_env}")
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host or not 0 < (parts.port or 80) < 1 << 16:
        raise ValueError(
            f"{url!r} is not an address that begins with http:// or https:// and names a host and a valid port"
        )


def root_of(url: str) -> str:
    """The server's address, without /v1."""
    return url.rstrip("/").removesuffix("/v1")


def proxy_of(url: str) -> str | None:
    """The proxy through which the environment sends requests to `url`, without its password; None if there is none."""
    import httpx

    try:
        parts = httpx.URL(url)
        if proxy_bypass(parts.host):
            return None
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy:
            return None
        there = httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
    except httpx.InvalidURL:
        return None
    return f"{there.scheme}://{there.netloc.decode()}"
