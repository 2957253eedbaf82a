"""The keys a client registers: at most five, RSA, public, for a year at most."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from maskinporten.domain.certificate import MAX_CERTIFICATE_LENGTH, MAX_CERTIFICATES
from maskinporten.domain.client import MAX_KEY_LIFETIME, MAX_KEYS, ClientKey, is_key_id
from maskinporten.domain.grant import ALGORITHMS
from maskinporten.domain.jwk import Unfit, read_rsa_jwk, rsa_members, thumbprint
from maskinporten.domain.members import instant

FaultAt = Callable[[str, str], None]
_MAX_TEXT_LENGTH: Final = (MAX_CERTIFICATE_LENGTH + 2) // 3 * 4  # characters of base64
KEY_MEMBERS: Final = frozenset(
    {
        "kty", "use", "alg", "kid", "n", "e", "x5c", "exp", "key_ops", "x5t", "x5t#S256",
        "created", "last_updated",
    }
)  # fmt: skip


def declare_keys(
    fault: FaultAt,
    path: str,
    jwks: Any,
    before: tuple[ClientKey, ...],
    now: int,
    *,
    renew: bool = False,
) -> tuple[ClientKey, ...]:
    """The whole new set, or the faults; one bad key refuses them all (RFC 7517 section 5).

    A key that stood there before, unchanged, keeps its expiry unless another is given, or unless
    posting it again is to `renew` it.
    """
    found = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(found, list) or jwks.keys() - {"keys", "created", "last_updated"}:
        fault(path, 'must be {"keys": [...]}')
        return before
    if len(found) > MAX_KEYS:
        fault(f"{path}.keys", f"at most {MAX_KEYS} keys")
        return before
    known = {key.kid: key for key in before}
    made: list[ClientKey] = []
    for number, jwk in enumerate(found):
        where = f"{path}.keys[{number}]"
        key = declare_key(fault, where, jwk, known, now, renew=renew)
        if key is not None and any(other.kid == key.kid for other in made):
            fault(f"{where}.kid", f"stands twice: {key.kid}")
        elif key is not None:
            made.append(key)
    return tuple(made)


def declare_key(
    fault: FaultAt,
    path: str,
    jwk: Any,
    known: Mapping[str, ClientKey],
    now: int,
    *,
    renew: bool = False,
) -> ClientKey | None:
    """One public key, or None with its fault."""
    if not isinstance(jwk, Mapping):
        fault(path, "must be an object")
        return None
    try:
        n, e = read_rsa_jwk(jwk)
    except Unfit as unfit:
        fault(path, str(unfit))
        return None
    kid, alg = jwk.get("kid"), jwk.get("alg") or "RS256"
    if not is_key_id(kid):
        fault(f"{path}.kid", "must be 1 to 255 letters, digits, '.', '_' or '-'")
        return None
    if alg not in ALGORITHMS:
        fault(f"{path}.alg", f"must be one of {', '.join(ALGORITHMS)}")
        return None
    for name in sorted(jwk.keys() - KEY_MEMBERS):
        fault(f"{path}.{name}", "is not a member of a key")
    x5c = _read_x5c(fault, path, jwk.get("x5c"), n)
    before, at = known.get(str(kid)), instant(now)
    key = ClientKey(
        kid=str(kid), n=n, e=e, alg=alg, x5c=x5c, exp=now + MAX_KEY_LIFETIME,
        created=at, last_updated=at,
    )  # fmt: skip
    exp = jwk.get("exp")
    if before is not None and _undated(before) == _undated(key):
        if exp == before.exp or (exp is None and not renew):
            return before
        key = replace(key, created=before.created)
    if exp is None:
        return key
    if isinstance(exp, bool) or not isinstance(exp, int) or not now < exp <= key.exp:
        fault(f"{path}.exp", "must be in the future, at most a year (365 days) ahead")
        return None
    return replace(key, exp=exp)


def _undated(key: ClientKey) -> ClientKey:
    return replace(key, exp=0, created="", last_updated="")


def _read_x5c(fault: FaultAt, path: str, x5c: Any, n: str) -> tuple[str, ...]:
    """The certificates beside a key; the first must hold the key (RFC 7517 section 4.7)."""
    if x5c is None:
        return ()
    chain = tuple(x5c) if isinstance(x5c, list | tuple) else ()
    if len(chain) > MAX_CERTIFICATES or not all(
        isinstance(one, str) and len(one) <= _MAX_TEXT_LENGTH for one in chain
    ):
        fault(f"{path}.x5c", f"must be at most {MAX_CERTIFICATES} certificates of 8 KiB in base64")
        return ()
    try:
        leaf = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        key = leaf.public_key()
    except (ValueError, IndexError, binascii.Error):
        fault(f"{path}.x5c", "must be an array of base64 DER certificates, the leaf first")
        return ()
    if not isinstance(key, RSAPublicKey) or rsa_members(key)[0] != n:
        fault(f"{path}.x5c", "the first certificate does not hold this key")
    return chain


def jwk_of_pem(pem: str, kid: str | None = None) -> dict[str, Any]:
    """The JWK of a public key or certificate in PEM. `kid` is the thumbprint if not given.

    Raises ValueError with a sentence, for a private key too.
    """
    if "PRIVATE KEY" in pem:
        raise ValueError("holds a private key; send the public key only")
    try:
        if "BEGIN CERTIFICATE" in pem:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            key = certificate.public_key()
        else:
            key = load_pem_public_key(pem.encode())  # type: ignore[assignment]
    except ValueError as fault:
        raise ValueError("is neither a public key nor a certificate in PEM") from fault
    if not isinstance(key, RSAPublicKey):
        raise Unfit("must be an RSA key")
    n, e = rsa_members(key)
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid or thumbprint(n, e),
        "n": n,
        "e": e,
    }
