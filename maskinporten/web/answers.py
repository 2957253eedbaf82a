"""From a Reason to a response: the only place where the catalogue meets HTTP."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import Scope, Send

from maskinporten.errors import Reason, Refused, Unavailable

_ENCODER: Final = msgspec.json.Encoder()
_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))
_TRACE_ID_LENGTH: Final = 32
_HEXADECIMAL: Final = frozenset(b"0123456789abcdef")
_log = logging.getLogger(__name__)


def trace_id(scope: Scope) -> str:
    """32 hexadecimal digits: the caller's own trace (W3C Trace Context), or a random one."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            parts = value.split(b"-")
            found = parts[1] if len(parts) > 2 else b""  # noqa: PLR2004 - version, trace, parent
            if (
                len(found) == _TRACE_ID_LENGTH
                and _HEXADECIMAL.issuperset(found)
                and found.strip(b"0")
            ):
                return str(found, "ascii")
    return os.urandom(16).hex()


def error_body(refused: Refused, issuer: str, trace: str) -> dict[str, str]:
    """The error of RFC 6749 section 5.2, as Maskinporten writes it."""
    body = {
        "error": refused.reason.error,
        "error_description": f"{refused.description} (trace_id: {trace})",
    }
    if refused.reason.ref is not None:
        body["error_uri"] = f"{issuer}errors/{refused.reason.ref}"
    return body


def refused_by(fault: Exception, trace: str) -> Refused:
    """What the caller is told for whatever was raised. A defect of ours is a blank 500."""
    if isinstance(fault, Refused):
        return fault
    if isinstance(fault, Unavailable):
        _log.warning("unavailable: %s (trace_id: %s)", fault.detail, trace)
        return Refused(Reason.TEMPORARILY_AWAY, fault.detail)
    _log.error("a defect of ours (trace_id: %s)", trace, exc_info=fault)
    return Refused(Reason.BROKEN, type(fault).__name__)


async def send_json(
    send: Send, status: int, body: Any, extra: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """A JSON answer that nobody keeps (RFC 6749 section 5.1)."""
    octets = _ENCODER.encode(body)
    headers = [_JSON, (b"content-length", b"%d" % len(octets)), *_NO_STORE, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": octets})


async def send_error(send: Send, fault: Exception, issuer: str, trace: str) -> Refused:
    """The error answer for `fault`; returns what was told."""
    refused = refused_by(fault, trace)
    extra: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(fault, Unavailable):
        extra = ((b"retry-after", b"%d" % fault.retry_after),)
    elif refused.reason is Reason.METHOD_NOT_ALLOWED:
        extra = ((b"allow", b"POST"),)
    await send_json(send, refused.reason.status, error_body(refused, issuer, trace), extra)
    return refused


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer of the endpoints that are not the token endpoint."""
    return Response(_ENCODER.encode(body), status, headers, "application/json")
