"""Signing keys at rest: sealed, bound to their row, refused when they do not open."""

import asyncio
import base64
import os
import threading
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from maskinporten.domain.jwk import thumbprint
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.rotation import RotationPolicy
from maskinporten.domain.signing import Stage, published
from maskinporten.errors import Unavailable
from maskinporten.keyring import KeyDoesNotOpen, Keyring
from maskinporten.settings import Secret
from tests.conftest import Starter
from tests.world import ISSUER, NOW, assertion

KEK = bytes(range(32))


def keyring(kek: bytes = KEK) -> Keyring:
    """A keyring of that key-encryption key."""
    return Keyring(kek, ISSUER, RotationPolicy(), lambda: NOW)


PREPARED = keyring().prepare(NOW, 2048)
ACTIVE = replace(PREPARED, stage=Stage.ACTIVE, activated=NOW)


def holding(*keys: object) -> Registry:
    """A registry with these signing keys."""
    return Registry().with_entities(Revision(1), keys)  # type: ignore[arg-type]


def test_a_fresh_key_is_named_by_its_thumbprint_and_shows_its_certificate() -> None:
    """Kid is RFC 7638; x5c holds a certificate of the same key."""
    certificate = x509.load_der_x509_certificate(base64.b64decode(PREPARED.x5c[0]))
    (shown,) = published((PREPARED,))["keys"]

    assert PREPARED.kid == thumbprint(PREPARED.n, PREPARED.e)
    assert list(shown) == ["kty", "use", "alg", "kid", "n", "e", "x5c"]
    assert jwt.PyJWK(shown).key.public_numbers() == certificate.public_key().public_numbers()  # type: ignore[union-attr]


def test_the_active_key_signs_what_the_key_set_verifies() -> None:
    """The private half comes out of the seal as it went in."""
    ring = keyring()
    ring.load(holding(ACTIVE))
    key = jwt.PyJWK(published((ACTIVE,))["keys"][0])

    assert key.Algorithm.verify(b"text", key.key, ring.signing_key().sign(b"text"))
    assert ACTIVE.kid in repr(ring.signing_key())


def test_a_stolen_database_does_not_open() -> None:
    """Under another key-encryption key nothing opens (attack 37)."""
    with pytest.raises(KeyDoesNotOpen, match=ACTIVE.kid):
        keyring(bytes(32)).load(holding(ACTIVE))


def test_a_sealed_key_moved_to_another_row_does_not_open() -> None:
    """The seal is bound to the kid (attack 37)."""
    other = replace(keyring().prepare(NOW, 2048), stage=Stage.ACTIVE)
    with pytest.raises(KeyDoesNotOpen):
        keyring().load(holding(replace(other, sealed=ACTIVE.sealed)))


def test_a_row_whose_public_half_was_changed_does_not_open() -> None:
    """What we publish is what we sign with."""
    other = keyring().prepare(NOW, 2048)
    with pytest.raises(KeyDoesNotOpen):
        keyring().load(holding(replace(ACTIVE, n=other.n)))


def test_a_changed_octet_does_not_open() -> None:
    """GCM notices."""
    sealed = bytearray(base64.b64decode(ACTIVE.sealed))
    sealed[40] ^= 1
    with pytest.raises(KeyDoesNotOpen):
        keyring().load(holding(replace(ACTIVE, sealed=base64.b64encode(sealed).decode())))


def test_without_an_active_key_nothing_is_signed() -> None:
    """A prepared key is published and does not sign."""
    ring = keyring()
    ring.load(holding(PREPARED))

    with pytest.raises(Unavailable):
        ring.signing_key()
    assert PREPARED.kid.encode() in ring.key_set


def test_the_key_set_shows_the_signing_key_first_and_no_removed_one() -> None:
    """Order: active, prepared, retired."""
    rows = [replace(ACTIVE, kid=stage, stage=stage, x5c=()) for stage in Stage]
    shown = [key["kid"] for key in published(tuple(rows))["keys"]]

    assert shown == ["active", "prepared", "retired"]


def test_the_tag_changes_with_the_key_set_only() -> None:
    """A cache that holds the tag holds the truth."""
    ring = keyring()
    ring.load(holding(ACTIVE))
    first = ring.etag
    ring.load(holding(ACTIVE))
    assert ring.etag == first
    ring.load(holding(ACTIVE, replace(keyring().prepare(NOW, 2048))))
    assert ring.etag != first


async def test_many_first_starts_make_one_key(start: Starter) -> None:
    """Any number of nodes may start at once; one key is made."""
    servers = await asyncio.gather(*(start() for _ in range(3)))

    kids = {server.services.keyring.signing_key().kid for server in servers}
    assert len(kids) == 1


async def test_a_start_with_a_wrong_key_is_refused(start: Starter, tmp_path: Path) -> None:
    """Start-up refuses what does not open; the right key still works after."""
    assert (await (await start()).post(assertion())).status_code == 200
    with pytest.raises(KeyDoesNotOpen):
        await start(tmp_path, key_encryption_key=Secret(b"x" * 32))
    assert (await (await start()).post(assertion())).status_code == 200


def test_a_key_made_gently_is_made_at_the_lowest_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread apart: whoever asked keeps its own."""
    generate = rsa.generate_private_key
    priorities: list[int] = []

    def generating(exponent: int, bits: int) -> rsa.RSAPrivateKey:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return generate(exponent, bits)

    monkeypatch.setattr("maskinporten.keyring.rsa.generate_private_key", generating)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    for gently in (True, False):
        made = keyring().prepare(NOW, 2048, gently=gently)
        keyring().open(made)

    assert priorities == [19, before]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
