"""The public keys of a client (Maskinporten: self-service, client registration, keys).

A set is replaced as a whole, or one key at a time; a key posted again is renewed for a year.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from maskinporten.domain.client import MAX_KEYS, Client, ClientKey
from maskinporten.domain.declaration import dated
from maskinporten.domain.jose import Malformed, read_object
from maskinporten.domain.jwk import PRIVATE_MEMBERS
from maskinporten.domain.keyset import KEY_MEMBERS, declare_key, declare_keys, jwk_of_pem
from maskinporten.domain.members import Reader
from maskinporten.domain.selfservice.caller import CHANGE_CLIENTS, READ_CLIENTS
from maskinporten.domain.selfservice.case import Case, Decision, conflict, verify_flawless
from maskinporten.domain.selfservice.clients import usable_client
from maskinporten.errors import Fault, InvalidInput, Reason, Refused

_TOLD: Final = KEY_MEMBERS | PRIVATE_MEMBERS


def read_keys(case: Case, client_id: str) -> tuple[ClientKey, ...]:
    """The keys of a client, expired ones too; none is an empty set."""
    return case.own_client(client_id, READ_CLIENTS).keys


def read_key(case: Case, client_id: str, kid: str) -> ClientKey:
    """One key. Raises Refused: NOT_YOURS."""
    return _key(case.own_client(client_id, READ_CLIENTS), kid)


def replace_keys(case: Case, client_id: str, data: Any) -> Decision:
    """The whole new set. One bad key refuses it, and the old one stays.

    Raises InvalidInput; Refused: NOT_YOURS, STATE_CONFLICT, CHANGED_MEANWHILE.
    """
    client = usable_client(case, client_id, CHANGE_CLIENTS)
    case.verify_unchanged(client.keys)
    reader = Reader("")
    found = data.get("keys") if isinstance(data, Mapping) else None
    if found == []:
        reader.fault("keys", "must not be empty; DELETE the key set to remove all keys")
    elif isinstance(found, list):
        data = {"keys": [_read(reader, f"keys[{n}]", jwk) for n, jwk in enumerate(found)]}
    keys = declare_keys(
        lambda where, sentence: reader.fault(where.removeprefix("jwks").lstrip("."), sentence),
        "jwks",
        data,
        client.keys,
        case.now,
        renew=True,
    )
    return _with_keys(case, client, keys, reader, keys)


def remove_keys(case: Case, client_id: str) -> Decision:
    """No key at all: only an enterprise certificate speaks for the client then."""
    client = usable_client(case, client_id, CHANGE_CLIENTS)
    case.verify_unchanged(client.keys)
    return _with_keys(case, client, (), Reader(""), client.keys)


def put_key(case: Case, client_id: str, kid: str, data: Any) -> Decision:
    """One key, added or put in the place of its namesake. Raises as `replace_keys`."""
    client = usable_client(case, client_id, CHANGE_CLIENTS)
    reader = Reader("")
    if case.if_match is not None:
        case.verify_unchanged(client.find_key(kid))
    if isinstance(data, Mapping) and data.get("kid", kid) != kid:
        reader.fault("kid", "is not the kid of the address")
    if isinstance(data, Mapping):
        data = {"kid": kid, **data}
    return _with_key(case, client, reader, _read(reader, "", data))


def add_key(case: Case, client_id: str, text: str) -> Decision:
    """One key from a text: a JWK, or a public key or certificate in PEM.

    A certificate gives its key; it does not lock the client to itself, as `x5c` would.
    """
    client = usable_client(case, client_id, CHANGE_CLIENTS)
    reader = Reader("")
    try:
        data = jwk_of_pem(text) if "-----BEGIN" in text else read_object(text.encode())
    except Malformed as fault:
        sentence = "must be a JWK, or a public key or a certificate in PEM"
        raise InvalidInput((Fault("key", sentence),)) from fault
    except ValueError as fault:
        raise InvalidInput((Fault("key", str(fault)),)) from fault
    return _with_key(case, client, reader, _read(reader, "", data))


def remove_key(case: Case, client_id: str, kid: str) -> Decision:
    """The key opens nothing any more. Raises Refused: NOT_YOURS."""
    client = usable_client(case, client_id, CHANGE_CLIENTS)
    gone = _key(client, kid)
    case.verify_unchanged(gone)
    rest = tuple(key for key in client.keys if key is not gone)
    return _with_keys(case, client, rest, Reader(""), gone)


def _key(client: Client, kid: str) -> ClientKey:
    found = client.find_key(kid)
    if found is None:
        raise Refused(Reason.NOT_YOURS, kid[:300], named=("key",))
    return found


def _read(reader: Reader, path: str, jwk: Any) -> Any:
    """The members of a JWK that mean something to us; others are ignored (RFC 7517 section 4)."""
    if not isinstance(jwk, Mapping):
        return jwk
    told = {n: value for n, value in jwk.items() if n in _TOLD and value not in (None, [])}
    if "use" not in told:
        reader.fault(f"{path}.use" if path else "use", "must be given, and be sig")
    return told


def _with_key(case: Case, client: Client, reader: Reader, data: Any) -> Decision:
    known = {key.kid: key for key in client.keys}
    key = declare_key(
        lambda where, sentence: reader.fault(where.removeprefix("key").lstrip("."), sentence),
        "key",
        data,
        known,
        case.now,
        renew=True,
    )
    if key is None:
        verify_flawless(reader)
        raise InvalidInput((Fault("", "must be a JWK"),))
    known[key.kid] = key
    if len(known) > MAX_KEYS:
        conflict(f"A client has at most {MAX_KEYS} keys; remove one first")
    return _with_keys(case, client, tuple(known.values()), reader, key)


def _with_keys(
    case: Case, client: Client, keys: tuple[ClientKey, ...], reader: Reader, shown: Any
) -> Decision:
    verify_flawless(reader)
    return case.decide(dated(replace(client, keys=keys), client, {}, case.now), shown)
