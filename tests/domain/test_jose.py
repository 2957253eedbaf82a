"""Strict base64url and JSON: one spelling, one meaning."""

import base64
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskinporten.domain.jose import Malformed, base64url, read_base64url, read_object


@given(st.binary(max_size=200))
def test_base64url_round_trip(octets: bytes) -> None:
    """What we write we read, and nobody pads."""
    assert read_base64url(base64url(octets)) == octets


@given(st.binary(max_size=40))
def test_base64url_is_canonical_or_refused(segment: bytes) -> None:
    """Whatever is accepted is the one spelling of its octets."""
    try:
        octets = read_base64url(segment)
    except Malformed:
        return
    assert base64.urlsafe_b64encode(octets).rstrip(b"=") == segment


@pytest.mark.parametrize(
    "segment", [b"YQ==", b"YR", b"Y", b"Y Q", b"YQ\n", b"+/+/", b"YWJj=", b"\xff"]
)
def test_base64url_refuses(segment: bytes) -> None:
    """Padding, stray bits, a lone character, spaces, the other alphabet."""
    with pytest.raises(Malformed):
        read_base64url(segment)


OBJECTS = [
    pytest.param(b"{}", {}, id="empty"),
    pytest.param(b' {"a" : [1, {"b": null}]} ', {"a": [1, {"b": None}]}, id="spaces"),
    pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, id="a pair of surrogates"),
    pytest.param(b'{"a":1.5}', {"a": Decimal("1.5")}, id="a fraction is a Decimal"),
    pytest.param(b'{"a":1e3}', {"a": Decimal("1E+3")}, id="an exponent too"),
    pytest.param(b'{"a":' + b"9" * 18 + b"}", {"a": int("9" * 18)}, id="18 digits"),
    pytest.param(b'{"a":' + b"[" * 7 + b"]" * 7 + b"}", {"a": [[[[[[[]]]]]]]}, id="8 levels"),
]


@pytest.mark.parametrize(("octets", "value"), OBJECTS)
def test_read_object(octets: bytes, value: object) -> None:
    """What is good JSON for us."""
    assert read_object(octets) == value


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"1", id="a number"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b'{"a":1,"a":2}', id="a name twice"),
        pytest.param(b'{"a":{"b":1,"b":1}}', id="a name twice, inside"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="a byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16-le"), id="UTF-16"),
        pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"\\udc00":1}', id="a lone surrogate in a name"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":-Infinity}', id="Infinity"),
        pytest.param(b'{"a":1e19}', id="beyond 10^18"),
        pytest.param(b'{"a":1e-19}', id="below 10^-18"),
        pytest.param(b'{"a":0.' + b"1" * 31 + b"}", id="33 characters of number"),
        pytest.param(b'{"a":' + b"9" * 19 + b"}", id="19 digits"),
        pytest.param(b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", id="9 levels"),
        pytest.param(b'{"a":' + b"[" * 90_000, id="90,000 levels"),
        pytest.param(b'{"a":01}', id="a leading zero"),
        pytest.param(b'{"a":"\x00"}', id="a control character"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="a trailing comma"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
    ],
)
def test_read_object_refuses(octets: bytes) -> None:
    """What has no single meaning, or asks too much (attack 8)."""
    with pytest.raises(Malformed):
        read_object(octets)
