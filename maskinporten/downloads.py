"""Fetches evidence of revocation over HTTP: bounded in size and time, and never from the inside."""

import asyncio
import ipaddress
import socket
from typing import Final

import httpcore  # noqa: F401 - httpx would import it late; a worker forked meanwhile would wait
import httpx

MAX_DOWNLOAD: Final = 64 * 1024 * 1024  # octets; the largest Norwegian lists are a few million
DEADLINE: Final = 30.0  # seconds for one download
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # IPv4 inside IPv6 (RFC 6052 section 2.1)


class Unfetched(Exception):
    """A download did not give what was wanted; what was there before stays."""


def open_http() -> httpx.AsyncClient:
    """A client for one round of downloads. It follows no redirect."""
    return httpx.AsyncClient(timeout=httpx.Timeout(DEADLINE / 3), follow_redirects=False)


async def download(
    http: httpx.AsyncClient, url: str, ask: bytes | None = None, *, private_addresses: bool
) -> bytes:
    """The body at the address; `ask` is a question for an OCSP responder.

    Raises Unfetched, httpx.HTTPError, OSError.
    """
    if not private_addresses:
        await _verify_address(httpx.URL(url))
    # Compressed twice, a few octets on the wire would be more than memory holds.
    method, headers = "GET", {"accept-encoding": "identity"}
    if ask is not None:
        method, headers["content-type"] = "POST", "application/ocsp-request"
    async with http.stream(method, url, content=ask, headers=headers) as response:
        if not private_addresses:
            _verify_peer(response)
        if response.status_code != httpx.codes.OK:
            raise Unfetched(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Unfetched("an encoding we did not ask for")
        octets = bytearray()
        async for part in response.aiter_raw():
            octets += part
            if len(octets) > MAX_DOWNLOAD:
                raise Unfetched("too long")
    return bytes(octets)


async def _verify_address(url: httpx.URL) -> None:
    """No name that leads to a private address. Raises Unfetched, OSError."""
    loop = asyncio.get_running_loop()
    port = url.port or 80
    for *_, place in await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM):
        _verify_public(str(place[0]))


def _verify_peer(response: httpx.Response) -> None:
    """And it was none of those that answered (a name may change between look and call)."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer is not None:
        _verify_public(str(peer[0]))


def _verify_public(address: str) -> None:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    if not found.is_global or found.is_multicast:
        raise Unfetched(f"{address} is not a public address")
