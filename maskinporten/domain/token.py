"""The access token: its claims, in Maskinporten's order, and its signature."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from maskinporten.domain.authorization import Authorization
from maskinporten.domain.jose import base64url
from maskinporten.domain.orgno import iso6523
from maskinporten.domain.seal import SealHolder
from maskinporten.domain.signing import ALGORITHM, SigningKey

_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed access token and what the caller is told about it."""

    token: str
    jti: str
    expires_at: int  # epoch seconds
    lifetime: int  # seconds
    scope: str

    def response(self) -> dict[str, Any]:
        """The success response (RFC 6749 section 5.1), members in Maskinporten's order.

        `expires_in` is one second less than the lifetime, so that a caller who counts from the
        arrival of the answer never holds a dead token.
        """
        return {
            "access_token": self.token,
            "token_type": "Bearer",
            "expires_in": self.lifetime - 1,
            "scope": self.scope,
        }


def access_token_claims(
    authorization: Authorization, issuer: str, now: int, jti: str
) -> dict[str, Any]:
    """The claims, in the order in which Maskinporten writes them; absent ones are absent.

    Observed tokens fix the order of all but `aud`, `pid` and `consumer_prefix`. The observed
    order is that of a 16-bucket hash map, which gives those three their places too.
    """
    a = authorization
    claims: dict[str, Any] = {}
    if a.resources:
        claims["aud"] = a.resources[0] if len(a.resources) == 1 else list(a.resources)
    if a.details:
        claims["authorization_details"] = list(a.details)
    claims["scope"] = " ".join(a.scopes)
    if a.supplier is not None:
        claims["supplier"] = iso6523(a.supplier)
    claims["iss"] = issuer
    claims["client_amr"] = a.client_amr
    if a.consumer_prefixes:
        claims["consumer_prefix"] = list(a.consumer_prefixes)
    if a.pid is not None:
        claims["pid"] = a.pid
    claims["token_type"] = "Bearer"  # noqa: S105 - the scheme's name (RFC 6750)
    claims["exp"] = now + a.lifetime
    if a.delegation_source is not None:
        claims["delegation_source"] = a.delegation_source
    claims["iat"] = now
    claims["client_id"] = a.client_id
    claims["jti"] = jti
    claims["consumer"] = (
        a.consumer.claim() if isinstance(a.consumer, SealHolder) else iso6523(a.consumer)
    )
    return claims


def sign_token(
    authorization: Authorization, key: SigningKey, issuer: str, now: int, jti: str
) -> AccessToken:
    """The access token: a JWS in compact form (RFC 7515 section 7.1) with `kid` and `alg` alone.

    `jti` is 43 characters of base64url, 256 random bits, which the caller draws.
    """
    claims = access_token_claims(authorization, issuer, now, jti)
    signing_input = _header_segment(key.kid) + b"." + base64url(_ENCODER.encode(claims))
    token = signing_input + b"." + base64url(key.sign(signing_input))
    return AccessToken(
        token=token.decode(),
        jti=jti,
        expires_at=now + authorization.lifetime,
        lifetime=authorization.lifetime,
        scope=claims["scope"],
    )


@lru_cache(maxsize=16)
def _header_segment(kid: str) -> bytes:
    return base64url(_ENCODER.encode({"kid": kid, "alg": ALGORITHM}))
