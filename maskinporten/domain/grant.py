"""The JWT grant (RFC 7523): read it, find its signer, verify it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from maskinporten.domain.certificate import (
    EnterpriseCertificate,
    ProvenCertificate,
    read_x5c,
    verify_x5c_shape,
)
from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.jose import Malformed, read_base64url, read_object
from maskinporten.domain.jwk import public_key, rsa_members
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.person import is_well_formed_pid
from maskinporten.domain.scope import MAX_SCOPES_PER_GRANT, ScopeName, is_scope_token
from maskinporten.errors import Reason, Refused

Assertion = NewType("Assertion", str)
"""What the caller sent as `assertion`. Nothing about it is known."""

MAX_ASSERTION_LENGTH: Final = 64 * 1024  # characters
MAX_LIFETIME: Final = 120  # seconds from iat to exp (Maskinporten: JWT grant)
SKEW: Final = 10  # seconds a caller's clock may be ahead of ours, its end included
MAX_RESOURCES: Final = 16
MAX_URI_LENGTH: Final = 2048  # characters
MAX_JTI_LENGTH: Final = 1024  # characters

_DIGESTS: Final = {"RS256": SHA256(), "RS384": SHA384(), "RS512": SHA512()}
ALGORITHMS: Final = tuple(_DIGESTS)
_ALL_ALGORITHMS: Final = frozenset(ALGORITHMS)
_PADDING: Final = PKCS1v15()
# Members that bring a key, point to one, or change how the rest is read. `typ`, `x5t` and
# `x5t#S256` are not among them: real clients send them, and they decide nothing.
_HEADER_REFUSED: Final = frozenset({"jwk", "jku", "x5u", "crit", "b64", "zip", "enc", "epk"})
_KIND: Final = "authorization-grant+jwt"  # RFC 7523bis; any other kind of JWT is not a grant
DOCUMENTED_CLAIMS: Final = frozenset(
    {
        "aud", "iss", "iat", "exp", "nbf", "sub", "jti", "scope", "resource", "pid",
        "consumer_org", "iss_onbehalfof", "authorization_details",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnverifiedGrant:
    """What the assertion says of itself, before anything proves it. Made by `read_assertion`."""

    algorithm: str
    kid: str | None
    x5c: object  # None where it is absent; its shape is the certificate rules' to judge
    client_id: ClientId
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes
    digest: bytes  # SHA-256 of the decoded signing input


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that must have signed, and how the token will speak of it. Made by `find_signer`."""

    key: RSAPublicKey
    algorithms: frozenset[str]
    client_amr: str
    kid: str | None = None
    certificate: ProvenCertificate | None = None
    orgno: OrgNo | None = None  # whose the certificate must be; None where a key is registered
    client_id: ClientId | None = None  # of a seal, which is no registered client


Certificates = Callable[[object, int], EnterpriseCertificate]
"""From an `x5c` header and the time to the organisation it proves. Raises Refused."""


def refuse_certificates(x5c: object, _now: int) -> EnterpriseCertificate:
    """The `Certificates` of a server that has no trust store: well-formed ones are refused too."""
    read_x5c(x5c)
    raise Refused(Reason.CERTIFICATE_INVALID, "there is no trust store")


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant that holds: signed by its client, for us, now. Made by `verify_grant` only.

    That it was not used before, and what it may have, are later questions.
    """

    client_id: ClientId
    client_amr: str
    scopes: tuple[ScopeName, ...]  # as asked for, each once, in their order
    spend_key: bytes  # 32 octets that name this grant among the client's
    spent_until: int  # epoch seconds until which it must be remembered
    resources: tuple[str, ...] = ()
    pid: str | None = None
    consumer_org: OrgNo | None = None
    iss_onbehalfof: str | None = None
    authorization_details: tuple[Mapping[str, Any], ...] | None = None


def read_assertion(assertion: Assertion) -> UnverifiedGrant:
    """Take the assertion apart, strictly; believe nothing in it.

    Raises Refused: ASSERTION_MALFORMED, ALGORITHM_REFUSED, HEADER_REFUSED, CLAIM_INVALID (iss).
    """
    if len(assertion) > MAX_ASSERTION_LENGTH:
        raise Refused(Reason.ASSERTION_MALFORMED, f"{len(assertion)} characters")
    try:
        segments = assertion.encode("ascii").split(b".", 3)
        if len(segments) != 3:  # noqa: PLR2004 - header, payload, signature (RFC 7515 section 7.1)
            raise Malformed(f"{len(segments) - 1} dots or more")
        header_octets, payload, signature = map(read_base64url, segments)
        header = read_object(header_octets)
        claims = read_object(payload)
    except (Malformed, UnicodeEncodeError) as fault:
        raise Refused(Reason.ASSERTION_MALFORMED, str(fault)) from fault
    algorithm, kid = _read_header(header)
    client_id = claims.get("iss")
    if not isinstance(client_id, str) or not client_id:
        raise Refused(Reason.CLAIM_INVALID, "no iss", named=("iss",))
    return UnverifiedGrant(
        algorithm=algorithm,
        kid=kid,
        x5c=header.get("x5c"),
        client_id=ClientId(client_id),
        claims=claims,
        signing_input=segments[0] + b"." + segments[1],
        signature=signature,
        digest=hashlib.sha256(header_octets + b"." + payload).digest(),
    )


def _read_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _DIGESTS:
        raise Refused(Reason.ALGORITHM_REFUSED, repr(algorithm)[:80])
    if refused := _HEADER_REFUSED & header.keys():
        name = min(refused)
        raise Refused(Reason.HEADER_REFUSED, name, named=(f"{name} is not allowed",))
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Refused(Reason.HEADER_REFUSED, "kid", named=("kid must be a string",))
    kind = header.get("typ")
    if kind is None:
        return algorithm, kid
    if not isinstance(kind, str):
        raise Refused(Reason.HEADER_REFUSED, "typ", named=("typ must be a string",))
    kind = kind.lower().removeprefix("application/")
    if kind.endswith("+jwt") and kind != _KIND:
        # An access token (RFC 9068), a DPoP proof (RFC 9449), a logout token: never a grant.
        raise Refused(Reason.HEADER_REFUSED, kind[:80], named=("typ names another kind of JWT",))
    return algorithm, kid


def find_signer(
    unverified: UnverifiedGrant,
    client: Client,
    now: int,
    certificates: Certificates = refuse_certificates,
) -> Signer:
    """The key that must have signed this client's grant: a registered one, or a certificate's.

    Once a client has registered a key, certificates alone no longer speak for it. Observed on
    test.maskinporten.no (protocol, decision table):

        registered keys   header               signer
        none              x5c                  the certificate
        none              kid, with or without x5c   KEY_ID_UNKNOWN
        some              x5c                  KEY_ID_MISSING
        some              kid, with or without x5c   the registered key

    Raises Refused: KEY_ID_UNKNOWN, KEY_ID_MISSING, SIGNER_MISSING, KEY_EXPIRED, X5C_MALFORMED,
    CERTIFICATE_INVALID.
    """
    if unverified.kid is not None:
        return _find_registered(unverified, client, now, certificates)
    if client.keys:
        raise Refused(Reason.KEY_ID_MISSING)
    if unverified.x5c is None:
        raise Refused(Reason.SIGNER_MISSING)
    certificate = certificates(unverified.x5c, now)
    return Signer(
        certificate.key,
        _ALL_ALGORITHMS,
        certificate.client_amr,
        certificate=certificate,
        orgno=client.client_orgno,
    )


def _find_registered(
    unverified: UnverifiedGrant, client: Client, now: int, certificates: Certificates
) -> Signer:
    key = client.find_key(unverified.kid or "")
    if key is None:
        raise Refused(Reason.KEY_ID_UNKNOWN, f"{len(client.keys)} keys are registered")
    if key.exp <= now:
        raise Refused(Reason.KEY_EXPIRED, f"kid {key.kid} expired at {key.exp}")
    if unverified.x5c is not None:
        verify_x5c_shape(unverified.x5c)
    certificate = None
    if key.x5c:
        # The owner tied the key to a certificate: it dies with it (expiry, revocation).
        certificate = certificates(list(key.x5c), now)
        if unverified.x5c is not None and read_x5c(unverified.x5c)[0] != certificate.der:
            raise Refused(Reason.CERTIFICATE_INVALID, "the key is locked to another certificate")
        if rsa_members(certificate.key) != (key.n, key.e):
            raise Refused(Reason.CERTIFICATE_INVALID, "the certificate is for another key")
    return Signer(
        public_key(key.n, key.e), frozenset({key.alg}), "private_key_jwt", key.kid, certificate
    )


def verify_grant(
    unverified: UnverifiedGrant,
    signer: Signer,
    audiences: frozenset[str],
    now: int,
    *,
    refuse_unknown_claims: bool = False,
) -> Grant:
    """The grant, once its signature, audience, times and claims hold; in that order.

    `audiences` holds our issuer, exactly as published. Raises Refused: SIGNATURE_INVALID,
    ORGNO_MISMATCH, AUDIENCE_INVALID, GRANT_EXPIRED, ISSUED_AHEAD, NOT_YET_VALID, GRANT_TOO_LONG,
    CLAIM_INVALID, CLAIM_UNKNOWN, SCOPE_MALFORMED, TARGET_INVALID.
    """
    verify_signature(unverified, signer)
    _verify_orgno(signer)
    claims = unverified.claims
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(audience, str) or audience not in audiences:
        raise Refused(Reason.AUDIENCE_INVALID, repr(audience)[:200])
    expires = _verify_times(claims, now)
    if refuse_unknown_claims and (unknown := claims.keys() - DOCUMENTED_CLAIMS):
        raise Refused(Reason.CLAIM_UNKNOWN, repr(sorted(unknown))[:200])
    _verify_tolerated(claims)
    return Grant(
        client_id=signer.client_id or unverified.client_id,
        client_amr=signer.client_amr,
        scopes=read_scopes(claims.get("scope")),
        spend_key=_spend_key(unverified, signer),
        spent_until=int(expires) + 1 + SKEW,
        resources=_read_resources(claims.get("resource")),
        pid=_read_pid(claims.get("pid")),
        consumer_org=read_consumer_org(claims.get("consumer_org")),
        iss_onbehalfof=_read_text(claims, "iss_onbehalfof"),
        authorization_details=_read_details(claims.get("authorization_details")),
    )


def verify_signature(unverified: UnverifiedGrant, signer: Signer) -> None:
    """The key's own record names the algorithm; the header may only agree. Raises Refused."""
    if unverified.algorithm not in signer.algorithms:
        raise Refused(Reason.SIGNATURE_INVALID, f"{unverified.algorithm} with a key for another")
    try:
        signer.key.verify(
            unverified.signature,
            unverified.signing_input,
            _PADDING,
            _DIGESTS[unverified.algorithm],
        )
    except InvalidSignature as fault:
        raise Refused(Reason.SIGNATURE_INVALID) from fault


def _verify_orgno(signer: Signer) -> None:
    """A certificate speaks for its own organisation's clients. Raises Refused: ORGNO_MISMATCH."""
    certificate, expected = signer.certificate, signer.orgno
    if not isinstance(certificate, EnterpriseCertificate) or expected is None:
        return
    if certificate.orgno != expected:
        raise Refused(Reason.ORGNO_MISMATCH, f"certificate {certificate.orgno}, client {expected}")


def _verify_times(claims: Mapping[str, Any], now: int) -> int | Decimal:
    """The expiry, once the three times hold. A fraction counts as it was sent."""
    expires = _read_time(claims, "exp")
    issued = _read_time(claims, "iat")
    if expires <= now:
        raise Refused(Reason.GRANT_EXPIRED, f"exp {expires}, now {now}")
    if issued > now + SKEW:
        raise Refused(Reason.ISSUED_AHEAD, f"iat {issued}, now {now}")
    if expires - issued > MAX_LIFETIME:
        raise Refused(Reason.GRANT_TOO_LONG, f"{expires - issued} s")
    if "nbf" in claims and _read_time(claims, "nbf") > now + SKEW:
        raise Refused(Reason.NOT_YET_VALID, f"nbf {claims['nbf']}, now {now}")
    return expires


def _read_time(claims: Mapping[str, Any], name: str) -> int | Decimal:
    time = claims.get(name)
    if isinstance(time, bool) or not isinstance(time, int | Decimal) or time < 0:
        raise Refused(Reason.CLAIM_INVALID, f"{name} is {time!r}"[:200], named=(name,))
    return time


def _verify_tolerated(claims: Mapping[str, Any]) -> None:
    """`sub` and `jti` mean nothing to us but must be what RFC 7519 says they are."""
    for name in ("sub", "jti"):
        _read_text(claims, name)
    if len(claims.get("jti") or "") > MAX_JTI_LENGTH:
        raise Refused(Reason.CLAIM_INVALID, "a long jti", named=("jti",))


def _read_text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(Reason.CLAIM_INVALID, f"{name} is {value!r}"[:200], named=(name,))
    return value


def read_scopes(value: object) -> tuple[ScopeName, ...]:
    """Asked for twice is asked for once; the order stays (RFC 6749 section 3.3)."""
    if not isinstance(value, str):
        raise Refused(Reason.CLAIM_INVALID, "scope is not a string", named=("scope",))
    names = tuple(dict.fromkeys(filter(None, value.split(" "))))
    if not names or len(names) > MAX_SCOPES_PER_GRANT:
        raise Refused(Reason.SCOPE_MALFORMED, f"{len(names)} scopes")
    if not all(map(is_scope_token, names)):
        raise Refused(Reason.SCOPE_MALFORMED, repr(value)[:200])
    return tuple(map(ScopeName, names))


def _read_resources(value: object) -> tuple[str, ...]:
    """RFC 8707 section 2: absolute URIs without a fragment; one as a string, or an array."""
    if value is None:
        return ()
    resources = value if isinstance(value, list) else [value]
    if len(resources) > MAX_RESOURCES or not all(map(_is_target, resources)):
        raise Refused(Reason.TARGET_INVALID, repr(value)[:200])
    return tuple(dict.fromkeys(resources))


def _is_target(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_URI_LENGTH or not value.isascii():
        return False
    scheme, colon, rest = value.partition(":")
    return (
        bool(colon and rest)
        and scheme[:1].isalpha()
        and scheme.translate(_SCHEME_EXTRAS).isalnum()
        and not any(character <= " " or character in '#"<>\\^`{|}\x7f' for character in value)
    )


_SCHEME_EXTRAS: Final = str.maketrans("", "", "+-.")


def _read_pid(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not is_well_formed_pid(value):
        raise Refused(Reason.CLAIM_INVALID, "pid", named=("pid",))
    return value


def read_consumer_org(value: object) -> OrgNo | None:
    """Raises Refused: CLAIM_INVALID."""
    if value is not None and find_orgno(value) is None:
        raise Refused(Reason.CLAIM_INVALID, repr(value)[:80], named=("consumer_org",))
    return find_orgno(value)


def _read_details(value: object) -> tuple[Mapping[str, Any], ...] | None:
    """RFC 9396 section 2: an array of objects. What stands in them is settled later."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise Refused(Reason.DETAILS_MALFORMED, "not an array of objects")
    return tuple(value)


def _spend_key(unverified: UnverifiedGrant, signer: Signer) -> bytes:
    """The grant's name among all grants: its client and its jti, or its whole decoded content.

    A seal's grant is named by the certificate, for its `iss` is anyone's to choose.

    Decoded, because the same grant may be spelled differently and must still be the same. Named
    by the client, so that nobody can use up another's jti.
    """
    jti = unverified.claims.get("jti")
    kind, name = (b"jti", jti.encode()) if jti else (b"sha", unverified.digest)
    client = unverified.client_id.encode()
    if signer.client_id is not None and signer.certificate is not None:
        client = b"\0" + hashlib.sha256(signer.certificate.der).digest()
    return hashlib.sha256(b"%d:%b:%b:%b" % (len(client), client, kind, name)).digest()
