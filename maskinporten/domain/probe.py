"""A token that opens nothing, signed by the next key: providers test their validators on it."""

from typing import Final

from maskinporten.domain.authorization import Authorization
from maskinporten.domain.client import PROBE
from maskinporten.domain.orgno import NOBODY
from maskinporten.domain.scope import PROBE_SCOPE
from maskinporten.domain.signing import SigningKey
from maskinporten.domain.token import AccessToken, sign_token

PROBE_LIFETIME: Final = 30  # seconds


def probe_audience(issuer: str) -> str:
    """What a probe is for. A validator that heeds `aud` lets it into no API (RFC 7519 4.1.3)."""
    return issuer + "jwk/probe"


def sign_probe(key: SigningKey, issuer: str, now: int, jti: str) -> AccessToken:
    """A token in every way like others, but for its audience, scope, client and consumer.

    The scope can be registered by nobody, and the consumer's number is no organisation's.
    """
    nobody = Authorization(
        client_id=PROBE,
        client_amr="private_key_jwt",
        consumer=NOBODY,
        supplier=None,
        scopes=(PROBE_SCOPE,),
        lifetime=PROBE_LIFETIME,
        resources=(probe_audience(issuer),),
    )
    return sign_token(nobody, key, issuer, now, jti)
