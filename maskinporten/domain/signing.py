"""Our signing keys: their stages, and what stands in the published key set.

prepared (published, not signing) -> active -> retired (published until its tokens are dead) ->
removed. Times decide when (`rotation`); this module holds the words.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, Protocol

CERTIFICATE_LIFE: Final = 3 * 365 * 24 * 3600  # seconds, as enterprise certificates live
DEFAULT_BITS: Final = 3072  # as the tokens of test.maskinporten.no are signed
ALGORITHM: Final = "RS256"


class Stage(StrEnum):
    """Where a signing key stands in its life."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"


PUBLISHED: Final = frozenset({Stage.PREPARED, Stage.ACTIVE, Stage.RETIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A signing key as it is stored: the public half open, the private half sealed.

    `sealed` opens only under the key-encryption key, and only in this row: its associated data
    is the kid.
    """

    kid: str  # RFC 7638 thumbprint
    stage: Stage
    n: str
    e: str
    sealed: str  # base64 of nonce and AES-256-GCM ciphertext of the PKCS#8 DER; empty once removed
    x5c: tuple[str, ...] = ()  # standard base64 of DER, leaf first
    alg: str = ALGORITHM
    created: int = 0  # epoch seconds
    prepared: int = 0  # epoch seconds since which it stands in /jwk
    activated: int = 0  # epoch seconds; 0: not yet
    retired: int = 0  # epoch seconds; 0: not yet
    removed: int = 0  # epoch seconds; 0: not yet
    canary: int = 0  # percent of the clients whose tokens it signs while it is prepared
    canary_at: int = 0  # epoch seconds at which `canary` was last set; 0: never
    revoked: int = 0  # epoch seconds; 0: it was not taken out of use in an emergency
    reason: str = ""  # why it was revoked, in the operator's words
    token: str = ""  # PKCS #11 URI (RFC 7512) of a key in a token, which has nothing sealed
    certificate_end: int = 0  # epoch seconds; 0: made by a release that did not write it

    @property
    def called_back(self) -> bool:
        """Whether it was on canary, and an operator went back. It is not activated by itself."""
        return self.stage is Stage.PREPARED and not self.canary and self.canary_at > 0


def takes_part(kid: str, share: int, client_id: str) -> bool:
    """Whether the client is among the `share` percent whose tokens a key on canary signs.

    The same clients on every worker, each key beginning with others; whoever takes part in a
    small share does in a larger one.
    """
    digest = sha256(f"{kid} {client_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < share


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """A key that waits for an authority's certificate. It is not published.

    `sealed` is as in `SealedKey`; empty once the certificate came, or the request was given up.
    """

    kid: str  # RFC 7638 thumbprint
    n: str
    e: str
    sealed: str
    created: int = 0  # epoch seconds


class SigningKey(Protocol):
    """A key that signs our tokens, wherever its private half lives."""

    @property
    def kid(self) -> str:
        """The name under which the public half is published."""
        ...

    def sign(self, signing_input: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 over the octets (RFC 7518 section 3.3)."""
        ...


def published(keys: "tuple[SealedKey, ...]") -> dict[str, list[dict[str, object]]]:
    """The JWK set (RFC 7517 section 5): the signing key first, then the next, then the old ones."""
    order = [Stage.ACTIVE, Stage.PREPARED, Stage.RETIRED]
    shown = sorted(
        (key for key in keys if key.stage in PUBLISHED),
        key=lambda key: (order.index(key.stage), -key.created, key.kid),
    )
    return {"keys": [_jwk(key) for key in shown]}


def _jwk(key: SealedKey) -> dict[str, object]:
    members: dict[str, object] = {
        "kty": "RSA",
        "use": "sig",
        "alg": key.alg,
        "kid": key.kid,
        "n": key.n,
        "e": key.e,
    }
    if key.x5c:
        members["x5c"] = list(key.x5c)
    return members
