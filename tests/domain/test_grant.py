"""Reading and naming grants, where the wire cannot reach; the tables are in web/test_token."""

from hashlib import sha256

import pytest

from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.grant import (
    MAX_ASSERTION_LENGTH,
    Assertion,
    find_signer,
    read_assertion,
    verify_grant,
)
from maskinporten.errors import Reason, Refused
from tests.world import ABSENT, ISSUER, NOW, assertion, registry

CLIENT: Client = registry().client(ClientId("consumer"))
KEY = CLIENT.keys[0]


def test_an_assertion_beyond_64_kib_is_not_even_split() -> None:
    """The byte cap comes before any work (attack 7)."""
    for length, refused in ((MAX_ASSERTION_LENGTH, "dots"), (MAX_ASSERTION_LENGTH + 1, "charact")):
        with pytest.raises(Refused) as refusal:
            read_assertion(Assertion("." * length))
        assert refusal.value.reason is Reason.ASSERTION_MALFORMED
        assert refused in refusal.value.detail


@pytest.mark.parametrize(("now", "good"), [(KEY.exp - 1, True), (KEY.exp, False)])
def test_a_key_is_good_until_its_expiry(now: int, good: bool) -> None:  # noqa: FBT001 - a column
    """MP-121 from that second on."""
    unverified = read_assertion(Assertion(assertion()))
    if good:
        assert find_signer(unverified, CLIENT, now).kid == KEY.kid
    else:
        with pytest.raises(Refused) as refusal:
            find_signer(unverified, CLIENT, now)
        assert refusal.value.reason is Reason.KEY_EXPIRED
        assert "Expired key" in refusal.value.description


def spend_key(grant: str) -> bytes:
    """The name under which a grant is spent."""
    unverified = read_assertion(Assertion(grant))
    signer = find_signer(unverified, CLIENT, NOW)
    return verify_grant(unverified, signer, frozenset({ISSUER}), NOW).spend_key


def test_a_grant_is_named_by_client_and_jti_or_by_its_content() -> None:
    """The format is stable over releases: a rolling upgrade keeps what was spent (attack 17)."""
    assert spend_key(assertion(jti="a")) == spend_key(assertion(jti="a", exp=NOW + 9))
    assert spend_key(assertion(jti="a")) != spend_key(assertion(jti="b"))
    assert spend_key(assertion(jti=ABSENT)) == spend_key(assertion(jti=ABSENT))
    assert spend_key(assertion(jti=ABSENT)) != spend_key(assertion(jti=ABSENT, exp=NOW + 9))
    assert spend_key(assertion(jti="")) != spend_key(assertion(jti=ABSENT))
    assert spend_key(assertion(jti="a")) == sha256(b"8:consumer:jti:a").digest()


def test_a_grant_is_remembered_beyond_its_expiry_and_the_skew() -> None:
    """Kept until exp and the skew, by our clock, rounded up (attack 17)."""
    unverified = read_assertion(Assertion(assertion(exp=NOW + 60.5)))
    signer = find_signer(unverified, CLIENT, NOW)

    assert verify_grant(unverified, signer, frozenset({ISSUER}), NOW).spent_until == NOW + 71
