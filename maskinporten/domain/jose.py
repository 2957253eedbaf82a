"""Strict reading and plain writing of the JSON and base64url that JOSE is made of.

PyJWT forgives duplicate member names, byte order marks, UTF-16 and padding; two readers that
forgive differently can be made to see different grants. Here one spelling has one meaning or none
(RFC 7515 section 2, RFC 7493, and the threats of RFC 8725).
"""

import binascii
import json
from base64 import urlsafe_b64encode
from decimal import Decimal
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 8  # containers within containers
MAX_NUMBER_LENGTH: Final = 32  # characters
_MAX_MAGNITUDE: Final = 18  # decimal digits before or after the point
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_NOT_URL_SAFE: Final = b"+/="
_PADDING: Final = (b"", None, b"==", b"=")


class Malformed(ValueError):
    """The bytes do not have exactly one meaning. The text says why, for our log."""


def read_base64url(segment: bytes) -> bytes:
    """Octets from canonical, unpadded base64url (RFC 7515 section 2). Raises Malformed."""
    padding = _PADDING[len(segment) % 4]
    if padding is None or segment.translate(None, _NOT_URL_SAFE) != segment:
        raise Malformed("not base64url")
    try:
        octets = binascii.a2b_base64(segment.translate(_URL_SAFE) + padding, strict_mode=True)
    except binascii.Error as fault:
        raise Malformed("not base64url") from fault
    if base64url(octets) != segment:
        raise Malformed("base64url with stray bits")
    return octets


def base64url(octets: bytes) -> bytes:
    """Octets as unpadded base64url (RFC 7515 section 2)."""
    return urlsafe_b64encode(octets).rstrip(b"=")


def read_object(octets: bytes) -> dict[str, Any]:
    """A JSON object whose names are unique at every level. Raises Malformed.

    UTF-8 without a byte order mark, no NaN or Infinity, no lone surrogates, at most eight levels.
    A number with a fraction or an exponent is a Decimal: it is compared as it was sent.
    """
    found = read_json(octets)
    if not isinstance(found, dict):
        raise Malformed("not an object")
    return found


def read_json(octets: bytes) -> Any:
    """Whatever JSON stands there, as strictly as in `read_object`. Raises Malformed."""
    try:
        text = octets.decode()
        found = _DECODER.decode(text)
    except (ValueError, RecursionError) as fault:
        raise Malformed(type(fault).__name__) from fault
    if "\\u" in text and _has_lone_surrogate(found):
        raise Malformed("a lone surrogate")
    if text.count("{") + text.count("[") > 1 and _depth(found) > MAX_DEPTH:
        raise Malformed("nested too deeply")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a member name stands twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_MAGNITUDE:
        raise Malformed("a number out of range")
    return int(text)


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_NUMBER_LENGTH:
        raise Malformed("a number out of range")
    number = Decimal(text)
    if abs(number.adjusted()) > _MAX_MAGNITUDE:
        raise Malformed("a number out of range")
    return number


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON")


def _has_lone_surrogate(found: object) -> bool:
    try:
        json.dumps(found, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return True
    return False


def _depth(found: object) -> int:
    if isinstance(found, dict):
        return 1 + max(map(_depth, found.values()), default=0)
    if isinstance(found, list):
        return 1 + max(map(_depth, found), default=0)
    return 0


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_integer,
    parse_float=_decimal,
    parse_constant=_no_constant,
)
