"""The registry file: what it may say, and every fault with its place."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from maskinporten.domain.client import MAX_KEY_LIFETIME
from maskinporten.domain.keyset import jwk_of_pem
from maskinporten.domain.manifest import describe, manifest, plan
from maskinporten.domain.members import instant
from maskinporten.domain.registry import Registry, Revision
from maskinporten.errors import InvalidInput
from tests.world import CONSUMER, NOW, PROVIDER, client, document, jwk, private_key, registry

WORLD = registry()


def test_applying_twice_changes_nothing() -> None:
    """Idempotent, whenever the second time is."""
    assert plan(document(), WORLD, NOW + 1000).entities == ()


def test_an_export_applies_to_nothing_new_and_makes_the_same_world() -> None:
    """The export is the same format, through JSON and back."""
    exported = json.loads(json.dumps(manifest(WORLD)))

    assert plan(exported, WORLD, NOW + 1000).entities == ()
    anew = Registry().with_entities(Revision(1), plan(exported, Registry(), NOW + 5).entities)
    assert manifest(anew) == manifest(WORLD)


def test_an_export_with_expired_keys_still_applies() -> None:
    """What stands in the registry may be declared again, however old it is."""
    later = NOW + 2 * MAX_KEY_LIFETIME

    assert plan(manifest(WORLD), WORLD, later).entities == ()


def test_a_change_is_described_member_by_member() -> None:
    """What an operator reads in a dry run."""
    changed = plan(
        {
            "scopes": [{"name": "skatt:kort", "at_max_age": 60}],
            "prefixes": [{"prefix": "ny", "owner_orgno": PROVIDER}],
            "accesses": [{"scope": "skatt:hemmelig", "consumer_orgno": CONSUMER}],
        },
        WORLD,
        NOW,
    )

    assert describe(changed, WORLD) == [
        "+ prefixes ny",
        "~ scopes skatt:kort: at_max_age",
        f"+ accesses skatt:hemmelig {CONSUMER}",
    ]


def test_what_the_file_does_not_name_stays() -> None:
    """Members too: an entry is laid over what is there."""
    (scope,) = plan(
        {"scopes": [{"prefix": "skatt", "subscope": "kort", "description": "New"}]}, WORLD, NOW + 9
    ).entities

    before = WORLD.scopes["skatt:kort"]  # type: ignore[index]
    assert scope.at_max_age == before.at_max_age == 30  # type: ignore[union-attr]
    assert scope.created == before.created  # type: ignore[union-attr]
    assert scope.last_updated == instant(NOW + 9)  # type: ignore[union-attr]


def test_texts_and_times_of_a_real_listing_are_kept() -> None:
    """Language variants and instants with six digits come back as they were."""
    listed = {
        "prefix": "skatt",
        "subscope": "a/b.c",
        "description": "x",
        "description#en": "in English",
        "long_description": "longer",
        "created": "2024-05-23T13:17:33.438Z",
        "last_updated": "2026-01-19T09:40:37.258551Z",
        "name": "skatt:a/b.c",
        "owner_orgno": PROVIDER,
        "authorization_max_age": 3600,
        "delegation_source": None,
        "description#nn": None,
    }
    after = WORLD.with_entities(Revision(2), plan({"scopes": [listed]}, WORLD, NOW).entities)
    found = next(s for s in manifest(after)["scopes"] if s["name"] == "skatt:a/b.c")

    for member in ("description#en", "long_description", "created", "last_updated"):
        assert found[member] == listed[member]
    assert found["authorization_max_lifetime"] == 3600


def customers(*entries: Any) -> dict[str, Any]:
    """A document with a client that has these customers."""
    return {"clients": [client("k", CONSUMER, "skatt:open", onbehalfof=list(entries))]}


def test_customers_of_a_client_are_kept_and_exported() -> None:
    """Onbehalfof entries survive the way out and in again."""
    entry = {"onbehalfof": "kunde", "name": "Kunde AS", "orgno": PROVIDER, "uri": None}
    change = plan(customers(entry), WORLD, NOW)
    after = WORLD.with_entities(Revision(2), change.entities)
    exported = next(c for c in manifest(after)["clients"] if c["client_id"] == "k")

    assert exported["onbehalfof"][0]["name"] == "Kunde AS"
    assert plan(manifest(after), after, NOW + 9).entities == ()
    assert plan(customers(entry), after, NOW + 9).entities == ()
    untouched = plan({"clients": [client("k", CONSUMER, "skatt:open")]}, after, NOW + 9)
    assert untouched.entities == ()


def test_a_key_without_expiry_gets_a_year_and_keeps_it() -> None:
    """A year from when it was first declared; the same key again is the same key."""
    key = WORLD.clients["consumer"].keys[0]  # type: ignore[index]

    assert key.exp == NOW + MAX_KEY_LIFETIME


def test_pem_of_key_and_certificate_make_a_jwk() -> None:
    """For those who have a PEM; the kid is the thumbprint unless it is chosen."""
    key = private_key("consumer").public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert jwk_of_pem(pem, "consumer") == jwk("consumer")
    assert len(jwk_of_pem(pem)["kid"]) == 43
    for wrong, sentence in (("-----BEGIN PRIVATE KEY-----", "private"), ("x", "neither")):
        with pytest.raises(ValueError, match=sentence):
            jwk_of_pem(wrong)


def one(section: str, **members: Any) -> dict[str, Any]:
    """A document of one entry."""
    return {section: [members]}


def keys(*found: Any) -> dict[str, Any]:
    """A document with a client that has these keys."""
    return {"clients": [{**client("k", CONSUMER, "skatt:open"), "jwks": {"keys": list(found)}}]}


FAULTS = [
    pytest.param({"scopse": []}, "scopse", "is not a section", id="an unknown section"),
    pytest.param({"scopes": {}}, "scopes", "must be an array", id="a section that is no array"),
    pytest.param({"scopes": [1]}, "scopes[0]", "must be an object", id="an entry that is none"),
    pytest.param(one("prefixes", prefix="x"), "prefixes[0].owner_orgno", "given", id="no owner"),
    pytest.param(
        one("prefixes", prefix="X", owner_orgno=PROVIDER), "prefixes[0].prefix", "lower", id="case"
    ),
    pytest.param(
        one("prefixes", prefix="x", owner_orgno="1"), "prefixes[0].owner_orgno", "nine", id="orgno"
    ),
    pytest.param(one("scopes", name="skatt:x"), "scopes[0].description", "given", id="no text"),
    pytest.param(one("scopes", name="ingen:x", description=""), "scopes[0].name", "exist", id="p"),
    pytest.param(one("scopes", name="skatt"), "scopes[0].name", "prefix:subscope", id="name"),
    pytest.param(
        one("scopes", prefix="skatt", description="x"), "scopes[0].subscope", "given", id="no name"
    ),
    pytest.param(
        one("scopes", name="skatt:kort", prefix="skatt", subscope="b"),
        "scopes[0].name",
        "say",
        id="two names",
    ),
    pytest.param(
        one("scopes", name="skatt:kort", at_max_agee=1), "scopes[0].at_max_agee", "at_max_age?",
        id="a typo",
    ),
    pytest.param(
        one("scopes", name="skatt:kort", at_max_age=-1), "scopes[0].at_max_age", "least", id="neg"
    ),
    pytest.param(
        one("scopes", name="skatt:kort", visibility="ALL"), "scopes[0].visibility", "PUBLIC", id="e"
    ),
    pytest.param(
        one("scopes", name="skatt:kort", allowed_integration_types=["x"]),
        "scopes[0].allowed_integration_types[0]", "maskinporten", id="within a list",
    ),
    pytest.param(
        {"scopes": [{"name": "skatt:kort", "description#en": 7}]}, "scopes[0].description#en",
        "text", id="a text that is none",
    ),
    pytest.param(one("accesses", scope="skatt:x"), "accesses[0].consumer_orgno", "given", id="?"),
    pytest.param(one("accesses", scope="skatt:x", consumer_orgno=CONSUMER), "accesses[0].scope",
                 "exist", id="access to nothing"),
    pytest.param(one("accesses", scope="skatt:kort", consumer_orgno="7"),
                 "accesses[0].consumer_orgno", "nine", id="access of nobody"),
    pytest.param(one("clients", client_id="x"), "clients[0].client_orgno", "given", id="no orgno"),
    pytest.param(one("clients", client_id="x y", client_orgno=CONSUMER), "clients[0].client_id",
                 "255", id="client id"),
    pytest.param(one("clients", client_id="eidas-1", client_orgno=CONSUMER), "clients[0].client_id",
                 "come by a seal", id="attack: named like a European seal"),
    pytest.param(one("clients", client_id="maskinporten", client_orgno=CONSUMER),
                 "clients[0].client_id", "calls itself", id="attack: named like this server"),
    pytest.param(one("clients", client_id="maskinporten-probe", client_orgno=CONSUMER),
                 "clients[0].client_id", "calls itself", id="attack: named like a probe"),
    pytest.param(one("clients", client_id="x", client_orgno=CONSUMER, access_token_lifetime=0),
                 "clients[0].access_token_lifetime", "at least 1", id="lifetime 0"),
    pytest.param({"clients": [client("x", CONSUMER, "skatt:hemmelig")]}, "clients[0].scopes[0]",
                 "no access", id="no access"),
    pytest.param({"clients": [client("x", CONSUMER, "skatt:no")]}, "clients[0].scopes[0]",
                 "not exist", id="no such scope"),
    pytest.param({"clients": [client("x", CONSUMER, "skatt:krr")]}, "clients[0].scopes[0]",
                 "not for maskinporten", id="another type's scope"),
    pytest.param({"clients": [client("consumer", CONSUMER, integration_type="krr")]},
                 "clients[0].integration_type", "cannot", id="type changed"),
    pytest.param({"clients": [client("x", CONSUMER, integration_type="idporten")]},
                 "clients[0].integration_type", "no machine", id="a log-in client"),
    pytest.param({"clients": [client("x", CONSUMER, grant_types=["implicit"])]},
                 "clients[0].grant_types", "must be", id="another grant type"),
    pytest.param({"clients": [client("x", CONSUMER, token_endpoint_auth_method="none")]},
                 "clients[0].token_endpoint_auth_method", "private_key_jwt", id="auth method"),
    pytest.param({"clients": [client("x", CONSUMER), client("x", CONSUMER)]}, "clients[1]",
                 "twice", id="a client twice"),
    pytest.param(keys(*(jwk("k", kid=str(n)) for n in range(6))), "clients[0].jwks.keys",
                 "at most 5", id="six keys"),
    pytest.param(keys(jwk("k"), jwk("k")), "clients[0].jwks.keys[1].kid", "twice", id="kid twice"),
    pytest.param(keys(jwk("k", d="x")), "clients[0].jwks.keys[0]", "private", id="a private key"),
    pytest.param(keys(jwk("k", kid="a/b")), "clients[0].jwks.keys[0].kid", "255", id="kid"),
    pytest.param(keys(jwk("k", alg="PS256")), "clients[0].jwks.keys[0].alg", "RS256", id="alg"),
    pytest.param(keys(jwk("k", q_="x")), "clients[0].jwks.keys[0].q_", "member", id="a stranger"),
    pytest.param(keys(jwk("k", exp=NOW)), "clients[0].jwks.keys[0].exp", "future", id="exp now"),
    pytest.param(keys(jwk("k", exp=NOW + MAX_KEY_LIFETIME + 1)), "clients[0].jwks.keys[0].exp",
                 "year", id="exp beyond a year"),
    pytest.param(keys(jwk("k", x5c=["AA"])), "clients[0].jwks.keys[0].x5c", "DER", id="bad x5c"),
    pytest.param(customers({"orgno": PROVIDER}), "clients[0].onbehalfof[0].onbehalfof", "given",
                 id="a customer without a name"),
    pytest.param(customers({"onbehalfof": "a", "orgno": "1"}), "clients[0].onbehalfof[0].orgno",
                 "nine", id="a customer without a number"),
    pytest.param(customers(7), "clients[0].onbehalfof[0]", "object", id="a customer that is none"),
    pytest.param(
        customers(*[{"onbehalfof": "a", "orgno": PROVIDER}] * 2),
        "clients[0].onbehalfof[1].onbehalfof", "twice", id="a customer twice",
    ),
    pytest.param(keys("x"), "clients[0].jwks.keys[0]", "object", id="a key that is none"),
    pytest.param({"clients": [{**client("x", CONSUMER), "jwks": {"keys": {}}}]}, "clients[0].jwks",
                 "must be", id="keys that are no list"),
    pytest.param(one("organizations", orgnr="1", name="x"), "organizations[0].orgnr", "nine",
                 id="an organisation"),
    pytest.param(one("organizations", name="x"), "organizations[0].orgnr", "given", id="no orgnr"),
    pytest.param(one("delegation_sources", name="x"), "delegation_sources[0].issuer", "given",
                 id="no issuer"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "path", "words"), FAULTS)
def test_a_fault_is_named_by_its_place(wrong: dict[str, Any], path: str, words: str) -> None:
    """One wrong thing: one fault, where it is, in a sentence."""
    with pytest.raises(InvalidInput) as invalid:
        plan(wrong, WORLD, NOW)

    assert [fault.path for fault in invalid.value.faults] == [path], str(invalid.value)
    assert words in invalid.value.faults[0].sentence


def test_every_fault_is_named() -> None:
    """Not only the first: an operator mends a file once."""
    wrong = {
        "prefixes": [{"prefix": "X", "owner_orgno": PROVIDER}, {"prefix": "y"}],
        "scopes": [{"name": "skatt:kort", "at_max_age": -1, "nam": "x"}],
    }
    with pytest.raises(InvalidInput) as invalid:
        plan(wrong, WORLD, NOW)

    assert len(invalid.value.faults) == 4


def certificate_of(name: str) -> "x509.Certificate":
    """A certificate of that name's key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begins = datetime.fromtimestamp(NOW, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private_key(name).public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=1))
        .sign(private_key(name), hashes.SHA256())
    )


def test_a_key_may_bring_its_certificate() -> None:
    """x5c is kept, and its first certificate must hold the key."""
    x5c = [base64.b64encode(certificate_of("k").public_bytes(Encoding.DER)).decode()]
    change = plan(keys(jwk("k", x5c=x5c)), WORLD, NOW)
    assert change.entities[0].keys[0].x5c == tuple(x5c)  # type: ignore[union-attr]
    after = WORLD.with_entities(Revision(2), change.entities)
    assert plan(manifest(after), after, NOW + 9).entities == ()

    with pytest.raises(InvalidInput, match="does not hold this key"):
        plan(keys(jwk("other", x5c=x5c)), WORLD, NOW)


def test_a_certificate_in_pem_gives_its_key() -> None:
    """For those who have nothing else; keys that are not RSA are refused."""
    pem = certificate_of("k").public_bytes(Encoding.PEM).decode()
    assert jwk_of_pem(pem, "k") == jwk("k")
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ValueError, match="RSA"):
        jwk_of_pem(spki)


def test_an_earlier_expiry_may_be_chosen_and_changed() -> None:
    """Within the year; the same key under another expiry is a change."""
    first = plan(keys(jwk("k", exp=NOW + 10)), WORLD, NOW)
    after = WORLD.with_entities(Revision(2), first.entities)
    second = plan(keys(jwk("k", exp=NOW + 20)), after, NOW + 1)

    assert first.entities[0].keys[0].exp == NOW + 10  # type: ignore[union-attr]
    assert second.entities[0].keys[0].exp == NOW + 20  # type: ignore[union-attr]
