"""Which RSA keys are fit to use, and how they are named."""

import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from maskinporten.domain.jose import base64url
from maskinporten.domain.jwk import (
    Unfit,
    public_key,
    read_rsa_jwk,
    rsa_members,
    thumbprint,
    verify_fit,
)
from tests.world import jwk, private_key

GOOD = private_key("good").public_key().public_numbers().n


def test_the_thumbprint_of_rfc_7638() -> None:
    """The example of RFC 7638 section 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY"
        "368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0f"
        "M4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )

    assert thumbprint(n, "AQAB") == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_key_survives_the_way_to_jwk_and_back() -> None:
    """N and e are all there is."""
    key = private_key("good").public_key()

    assert public_key(*read_rsa_jwk(jwk("good"))).public_numbers() == key.public_numbers()


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_fit_sizes(bits: int) -> None:
    """From 2048 to 4096 bits."""
    key = rsa.generate_private_key(65537, bits).public_key()

    assert read_rsa_jwk({"kty": "RSA", **dict(zip("ne", rsa_members(key), strict=True))})


def odd(bits: int) -> int:
    """A number of that size without small factors, for what never comes to factoring."""
    number = (1 << bits) - 1
    while math.gcd(number, math.prod(range(3, 752, 2))) != 1:
        number -= 2
    return number


def next_prime(number: int) -> int:
    """By trial with Fermat's test, which is enough for a test."""
    number |= 1
    while pow(2, number - 1, number) != 1:
        number += 2
    return number


def roca() -> int:
    """A modulus in the subgroup of 65537 modulo the first 39 primes, as the chip made them."""
    primorial = math.prod(p for p in range(2, 168) if all(p % q for q in range(2, p)))
    number = pow(65537, 12345, primorial)
    while number.bit_length() < 2048:
        number += primorial << (2048 - primorial.bit_length())
    return number


ROOT = next_prime(3 << 1022 | 1 << 600)
UNFIT = [
    pytest.param(odd(2047), 65537, "2048 to 4096", id="2047 bits"),
    pytest.param(odd(4097), 65537, "2048 to 4096", id="4097 bits"),
    pytest.param(odd(16384), 65537, "2048 to 4096", id="16384 bits"),
    pytest.param(GOOD, 3, "exponent", id="e is 3"),
    pytest.param(GOOD, 65539, "exponent", id="e is another prime"),
    pytest.param(GOOD, GOOD, "exponent", id="e of 2048 bits"),
    pytest.param(GOOD & ~1, 65537, "small factor", id="an even modulus"),
    pytest.param((GOOD // 751) * 751 | 1 << 2047, 65537, "small factor", id="a factor of 751"),
    pytest.param(roca(), 65537, "ROCA", id="ROCA"),
    pytest.param(ROOT * next_prime(ROOT + 2), 65537, "near each other", id="close primes"),
]


@pytest.mark.parametrize(("modulus", "exponent", "sentence"), UNFIT)
def test_unfit_numbers(modulus: int, exponent: int, sentence: str) -> None:
    """Weak keys are refused with the reason (attack 23)."""
    if sentence == "small factor" and modulus % 2 and modulus % 751:
        modulus += 751 - modulus % 751
        modulus += 751 * (modulus % 2 == 0)
    with pytest.raises(Unfit, match=sentence):
        verify_fit(modulus, exponent)


def test_an_unsafe_key_is_told_from_a_fit_one() -> None:
    """The fit key passes every one of those rules."""
    verify_fit(GOOD, 65537)


N, E = rsa_members(private_key("good").public_key())
BAD_JWKS: list[Any] = [
    pytest.param({"kty": "EC"}, "kty", id="another type"),
    pytest.param({"kty": "oct", "k": "AA"}, "private", id="a symmetric key"),
    pytest.param({"d": "AA"}, "private", id="a private key"),
    pytest.param({"use": "enc"}, "use", id="for encryption"),
    pytest.param({"key_ops": ["encrypt"]}, "key_ops", id="key_ops for encryption"),
    pytest.param({"n": 5}, "strings", id="n is a number"),
    pytest.param({"n": None}, "strings", id="no n"),
    pytest.param({"n": N + "=="}, "canonical", id="padding"),
    pytest.param({"n": "æ"}, "canonical", id="not ASCII"),
    pytest.param({"e": ""}, "leading zero", id="an empty e"),
    pytest.param({"e": base64url(b"\0\1\0\1").decode()}, "leading zero", id="a zero octet first"),
]


@pytest.mark.parametrize(("members", "sentence"), BAD_JWKS)
def test_bad_jwks(members: dict[str, Any], sentence: str) -> None:
    """What is not the public half of an RSA signing key (attack 24)."""
    with pytest.raises(Unfit, match=sentence):
        read_rsa_jwk({**jwk("good"), **members})
