"""Public RSA keys as JWK (RFC 7517, 7518 section 6.3, 7638), and which of them are fit to use."""

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from maskinporten.domain.jose import Malformed, base64url, read_base64url

MIN_BITS: Final = 2048  # Maskinporten: client registration, keys
MAX_BITS: Final = 4096  # the cost of a check grows with the square; nobody needs more today
EXPONENT: Final = 65537
_CLOSE_PRIMES_ROUNDS: Final = 100  # Fermat's method finds p and q that lie this near each other
_SMALL_PRIMES: Final = math.prod(
    p for p in range(3, 752, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2))
)
# Keys of a widely sold smart card chip lie in a small subgroup modulo these primes
# (CVE-2017-15361): a random modulus passes all of them with a chance below one in a hundred
# million.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_ROCA_RESIDUES: Final = tuple(
    frozenset(pow(EXPONENT, power, prime) for power in range(prime)) for prime in _ROCA_PRIMES
)
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class Unfit(ValueError):
    """The key must not be used; the text is a sentence for whoever registered it."""


def read_rsa_jwk(jwk: Mapping[str, Any]) -> tuple[str, str]:
    """The `n` and `e` of a public RSA signing key that is fit to use. Raises Unfit.

    The other members (`kid`, `alg`, `exp`, `x5c`) are the registry's to judge.
    """
    if PRIVATE_MEMBERS & jwk.keys():
        raise Unfit("holds private key members; send the public key only")
    if jwk.get("kty") != "RSA":
        raise Unfit("kty must be RSA")
    if jwk.get("use", "sig") != "sig":
        raise Unfit("use must be sig")
    if "key_ops" in jwk and jwk["key_ops"] != ["verify"]:
        raise Unfit('key_ops must be ["verify"] where it stands')
    n, e = jwk.get("n"), jwk.get("e")
    if not isinstance(n, str) or not isinstance(e, str):
        raise Unfit("n and e must be base64url strings")
    verify_fit(_unsigned(n), _unsigned(e))
    return n, e


def verify_fit(modulus: int, exponent: int) -> None:
    """Raises Unfit unless the numbers make a sound RSA key (attacks on weak keys, RFC 8725 3.5)."""
    bits = modulus.bit_length()
    if not MIN_BITS <= bits <= MAX_BITS:
        raise Unfit(f"an RSA key must have {MIN_BITS} to {MAX_BITS} bits; this one has {bits}")
    if exponent != EXPONENT:
        raise Unfit(f"the public exponent must be {EXPONENT}")
    if modulus % 2 == 0 or math.gcd(modulus, _SMALL_PRIMES) != 1:
        raise Unfit("the modulus has a small factor")
    if all(
        modulus % prime in residues
        for prime, residues in zip(_ROCA_PRIMES, _ROCA_RESIDUES, strict=True)
    ):
        raise Unfit("the key comes from a broken generator (ROCA, CVE-2017-15361)")
    if _has_close_primes(modulus):
        raise Unfit("the two primes of the key lie too near each other")


@lru_cache(maxsize=50_000)
def public_key(n: str, e: str) -> RSAPublicKey:
    """The key object of numbers that were judged when they were registered; made on first use."""
    return RSAPublicNumbers(_unsigned(e), _unsigned(n)).public_key()


def rsa_members(key: RSAPublicKey) -> tuple[str, str]:
    """The `n` and `e` members of a key object (RFC 7518 section 6.3.1)."""
    numbers = key.public_numbers()
    return _text(numbers.n), _text(numbers.e)


def thumbprint(n: str, e: str) -> str:
    """The JWK thumbprint with SHA-256 (RFC 7638): 43 characters of base64url."""
    canonical = f'{{"e":"{e}","kty":"RSA","n":"{n}"}}'
    return base64url(hashlib.sha256(canonical.encode()).digest()).decode()


def _unsigned(member: str) -> int:
    try:
        octets = read_base64url(member.encode())
    except (Malformed, UnicodeEncodeError) as fault:
        raise Unfit("n and e must be canonical base64url") from fault
    if not octets or octets[0] == 0:
        raise Unfit("n and e must be whole numbers without leading zero octets")
    return int.from_bytes(octets, "big")


def _text(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()


def _has_close_primes(modulus: int) -> bool:
    """Fermat's factorisation, for as many rounds as a careless generator deserves."""
    root = math.isqrt(modulus - 1) + 1
    for middle in range(root, root + _CLOSE_PRIMES_ROUNDS):
        square = middle * middle - modulus
        if math.isqrt(square) ** 2 == square:
            return True
    return False
