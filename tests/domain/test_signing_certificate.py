"""Which certificates of an authority may stand behind our own signing key."""

from collections.abc import Sequence

import pytest
from cryptography import x509

from maskinporten import pki
from maskinporten.domain.keystep import StepRefused
from maskinporten.domain.rotation import RotationPolicy
from maskinporten.domain.signing_certificate import planned_end, verify_chain
from maskinporten.pki import Issued
from tests.chains import YEAR, Wrong, issuing, leaf, root
from tests.world import NOW, private_key

UNTIL = NOW + YEAR
KEY = private_key("leaf").public_key()
BASIC = x509.BasicConstraints(ca=True, path_length=None)
PURPOSE = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")])


def accepted(*chain: Issued, until: int = UNTIL, now: int = NOW) -> list[bytes]:
    """What would be shown in x5c."""
    return list(verify_chain([one.der for one in chain], KEY, until, now))


def test_the_chain_in_any_order_and_with_strangers() -> None:
    """Authorities deliver it as they like."""
    good = leaf(Wrong())
    stranger = pki.make_root("Stranger", NOW - YEAR, private_key("stranger"))

    shown = accepted(root(), stranger, good, issuing())

    assert shown == [good.der, issuing().der, root().der]
    assert accepted(good, issuing()) == [good.der, issuing().der]


WRONG = [
    pytest.param(Wrong(key=private_key("other")), "is for this key", id="another key's"),
    pytest.param(Wrong(key=private_key("weak", 1024)), "is for this key", id="a weak key"),
    pytest.param(Wrong(dated=(NOW + 1, UNTIL)), "not valid yet", id="a second too early"),
    pytest.param(Wrong(dated=(NOW, UNTIL - 1)), "before the planned end", id="a second too short"),
    pytest.param(Wrong(add=[(BASIC, True)]), "an authority as the leaf", id="an authority's"),
    pytest.param(
        Wrong(add=[(pki.key_usage("key_encipherment"), True)]), "may not sign", id="for encryption"
    ),
    pytest.param(
        Wrong(add=[(pki.key_usage("content_commitment"), True)]), "digital", id="for seals alone"
    ),
    pytest.param(Wrong(add=[(PURPOSE, False)]), "other purposes", id="for TLS servers"),
    pytest.param(Wrong(signer=private_key("thief")), "does not hold", id="a forged signature"),
    pytest.param(Wrong(issuer=pki.ca_name("Nobody")), "is not in the file", id="issuer missing"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_refused(wrong: Wrong, sentence: str) -> None:
    """One thing wrong at a time, one sentence."""
    with pytest.raises(StepRefused, match=sentence):
        accepted(leaf(wrong), issuing(), root())


def test_a_weak_key_is_refused() -> None:
    """Even where the file is all of a piece."""
    weak = leaf(Wrong(key=private_key("weak", 1024)))
    with pytest.raises(StepRefused, match="2048 to 4096 bits"):
        verify_chain([weak.der, issuing().der], weak.key.public_key(), UNTIL, NOW)


ISSUERS: list[tuple[str, Sequence[tuple[x509.ExtensionType, bool]]]] = [
    ("no authority", [(x509.BasicConstraints(ca=False, path_length=None), True)]),
    ("no authority", [(BASIC, True), (pki.key_usage("digital_signature"), True)]),
]


@pytest.mark.parametrize(("sentence", "extensions"), ISSUERS)
def test_an_issuer_that_is_no_authority_is_refused(
    sentence: str, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> None:
    """The holder of one certificate cannot issue another."""
    key, name = private_key("false"), pki.ca_name("False")
    by = (root().certificate.subject, root().key)
    false = Issued(pki.certify(name, key, by, (NOW - YEAR, UNTIL), extensions), key)
    with pytest.raises(StepRefused, match=sentence):
        accepted(leaf(Wrong(by=false)), false, root())


def test_the_planned_end_covers_two_periods() -> None:
    """The key waits while another signs, signs, and its tokens die."""
    policy = RotationPolicy()
    counted = RotationPolicy(evidence=50)

    assert planned_end(policy, NOW) > NOW + policy.lead + 2 * policy.period + policy.margin
    assert planned_end(counted, NOW) == planned_end(policy, NOW) + 4 * policy.patience
