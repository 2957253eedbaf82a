"""The file behind the stand-in for Altinn: delegations, system users and consents, TOML or JSON."""

import json
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from maskinporten.errors import Fault, InvalidInput

_Orgno = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{9}$")]
_Urn = Annotated[str, msgspec.Meta(pattern=r"^urn:altinn:(person|organization):identifier-no:\d+$")]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An entry of the file; a member we do not know is most often a typo."""


class DelegatedScopes(_Entry, frozen=True):
    """`consumer_org` has delegated these scopes to `supplier_org`."""

    consumer_org: _Orgno
    supplier_org: _Orgno
    scopes: list[str]


class SystemUser(_Entry, frozen=True):
    """`owner` has approved a system user of `vendor`'s system, for these clients."""

    owner: _Orgno
    vendor: _Orgno
    clients: list[str]
    system_id: str
    external_ref: str = ""  # empty: the owner's organisation number, as in Altinn
    id: uuid.UUID | None = None
    deleted: bool = False


class Right(_Entry, frozen=True):
    """What a consent is about."""

    resource: str
    action: tuple[str, ...] = ("consent",)
    metadata: dict[str, str] = {}


class Consent(_Entry, frozen=True):
    """`giver` has consented that `to` gets at the resources."""

    id: uuid.UUID
    giver: _Urn
    to: _Orgno
    rights: list[Right]
    state: Annotated[str, msgspec.Meta(pattern="^(accepted|created|revoked)$")] = "accepted"
    consented: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    valid_to: datetime | None = None  # None: a year from now


class Known(_Entry, frozen=True):
    """The whole file."""

    delegations: list[DelegatedScopes] = []
    system_users: list[SystemUser] = []
    consents: list[Consent] = []


def read_known(path: Path) -> Known:
    """The file, TOML or JSON. Raises InvalidInput with its first fault."""
    try:
        text = path.read_text()
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        return msgspec.convert(found, Known, strict=False)
    except OSError as fault:
        raise InvalidInput((Fault(str(path), str(fault.strerror)),)) from fault
    except (ValueError, msgspec.ValidationError) as fault:
        raise InvalidInput((Fault(str(path), str(fault)),)) from fault
