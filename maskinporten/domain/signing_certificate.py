"""Whether an authority's certificate may stand behind a signing key of ours.

Providers take the key from /jwk; whoever pins the certificate must find one that holds for as
long as the key is in use (SEID 2.0 profile: keyUsage; RFC 5280 section 4.2.1).
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import Certificate

from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.jwk import Unfit, verify_fit
from maskinporten.domain.keystep import StepRefused, instant
from maskinporten.domain.rotation import RotationPolicy

MAX_CHAIN: Final = 6
_DIGESTS: Final = frozenset({"sha256", "sha384", "sha512"})


def planned_end(policy: RotationPolicy, now: int) -> int:
    """Until when (epoch seconds) a key that is prepared now must be vouched for.

    It waits while another signs, it signs, and its last tokens die.
    """
    return now + policy.lead + 2 * policy.period + MAX_TOKEN_LIFETIME + policy.margin


def ordered(certificates: Sequence[Certificate], key: RSAPublicKey) -> list[Certificate]:
    """The chain of the certificate that is for `key`, leaf first. Raises StepRefused.

    Authorities deliver the certificates of a chain in any order.
    """
    leaves = [one for one in certificates if one.public_key() == key]
    if not leaves:
        raise StepRefused("no certificate in the file is for this key")
    chain = [leaves[0]]
    while len(chain) <= MAX_CHAIN and chain[-1].issuer != chain[-1].subject:
        above = [c for c in certificates if c.subject == chain[-1].issuer and c not in chain]
        if not above:
            break
        chain.append(above[0])
    return chain


def verify_signing_certificate(chain: Sequence[Certificate], must_last: int, now: int) -> None:
    """The chain, leaf first, fits a signing key until `must_last` (epoch seconds).

    Raises StepRefused with a sentence about the first fault.
    """
    leaf = chain[0]
    key = leaf.public_key()
    if not isinstance(key, RSAPublicKey):
        raise StepRefused("the key must be RSA: tokens are signed with RS256")
    try:
        verify_fit(key.public_numbers().n, key.public_numbers().e)
    except Unfit as fault:
        raise StepRefused(str(fault)) from fault
    _verify_usage(leaf)
    for certificate in chain:
        name = certificate.subject.rfc4514_string()
        if certificate.not_valid_before_utc > datetime.fromtimestamp(now, UTC):
            raise StepRefused(f"the certificate of {name} is not valid yet")
        end = int(certificate.not_valid_after_utc.timestamp())
        if end < must_last:
            raise StepRefused(
                f"the certificate of {name} ends at {instant(end)}, before the planned end of the "
                f"key at {instant(must_last)}; shorten the rotation period, or get a longer one"
            )
        digest = certificate.signature_hash_algorithm
        if digest is None or digest.name not in _DIGESTS:
            raise StepRefused(f"the certificate of {name} is signed with a weak or unknown digest")
    for lower, upper in itertools.pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (InvalidSignature, ValueError, TypeError) as fault:
            name = lower.subject.rfc4514_string()
            raise StepRefused(
                f"the certificate of {name} was not issued by the next one"
            ) from fault


def _verify_usage(leaf: Certificate) -> None:
    try:
        extensions = leaf.extensions
    except (ValueError, x509.DuplicateExtension) as fault:
        raise StepRefused(f"the certificate cannot be read: {fault}") from fault
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise StepRefused("the certificate is an authority's, not a signer's")
        if isinstance(value, x509.KeyUsage) and not (
            value.digital_signature or value.content_commitment
        ):
            raise StepRefused("the certificate's keyUsage does not allow signatures")
