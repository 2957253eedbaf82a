"""Whether an authority's certificate may stand behind a signing key of ours.

Providers take the key from /jwk; whoever pins the certificate must find one that holds for as
long as the key is in use. The rules are those for the certificates of others (`certificate`,
`link`); that anyone trusts the authority is not our question.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from maskinporten.domain.certificate import signing_key, verify_leaf
from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.keystep import StepRefused, instant
from maskinporten.domain.link import Invalid, Link, read_link, verify_signed
from maskinporten.domain.path import MAX_PATH
from maskinporten.domain.rotation import RotationPolicy


def planned_end(policy: RotationPolicy, now: int) -> int:
    """Until when (epoch seconds) a key that is prepared now must be vouched for.

    It waits while another signs, it signs, and its last tokens die.
    """
    wait = 2 * policy.patience if policy.evidence else 0
    signs = policy.period + policy.ramping + wait
    return now + policy.lead + 2 * signs + MAX_TOKEN_LIFETIME + policy.margin


def verify_chain(
    certificates: Sequence[bytes], key: RSAPublicKey, must_last: int, now: int
) -> tuple[bytes, ...]:
    """The chain of the certificate for `key`, leaf first, out of certificates in any order.

    Each is signed by the next and holds until `must_last` (epoch seconds). Raises StepRefused with
    a sentence about the first fault.
    """
    try:
        links = [read_link(der) for der in certificates]
        leaf = next((one for one in links if one.certificate.public_key() == key), None)
        if leaf is None:
            raise StepRefused("no certificate in the file is for this key")
        signing_key(leaf)
        verify_leaf(leaf)
        if leaf.key_usage is None or not leaf.key_usage.digital_signature:
            raise StepRefused("the certificate's keyUsage does not allow digital signatures")
        chain = _chain(leaf, links)
        for link in chain:
            _verify_times(link, must_last, now)
    except Invalid as fault:
        raise StepRefused(f"the certificate will not do: {fault}") from fault
    return tuple(link.der for link in chain)


def _chain(leaf: Link, links: Sequence[Link]) -> list[Link]:
    chain = [leaf]
    while not chain[-1].self_issued:
        above = [one for one in links if one.subject == chain[-1].issuer and one not in chain]
        if not above:
            break
        issuer = above[0]
        if not issuer.is_ca or issuer.key_usage is None or not issuer.key_usage.key_cert_sign:
            raise StepRefused(f"{_name(issuer)} has issued it, and is no authority")
        verify_signed(chain[-1].certificate, issuer)
        chain.append(issuer)
    if len(chain) == 1:
        raise StepRefused(f"the certificate of {_issuer(leaf)}, who issued it, is not in the file")
    if len(chain) > MAX_PATH:
        raise StepRefused(f"the chain has more than {MAX_PATH} certificates")
    return chain


def _verify_times(link: Link, must_last: int, now: int) -> None:
    if link.not_before > now:
        raise StepRefused(f"the certificate of {_name(link)} is not valid yet")
    if link.not_after < must_last:
        raise StepRefused(
            f"the certificate of {_name(link)} ends at {instant(link.not_after)}, before the "
            f"planned end of the key at {instant(must_last)}; shorten the rotation period, or get "
            "a longer one"
        )


def _name(link: Link) -> str:
    return link.certificate.subject.rfc4514_string()


def _issuer(link: Link) -> str:
    return link.certificate.issuer.rfc4514_string()
