"""Our own access tokens, as callers of our own API send them (RFC 6750)."""

from collections.abc import Callable, Mapping
from typing import Final

import httpx

from maskinporten.domain.client import ClientId
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.selfservice.caller import Caller, living_scopes
from maskinporten.errors import Reason, Refused, Unavailable
from maskinporten.validator import (
    AsyncValidator,
    KeysUnavailable,
    Policy,
    TokenInvalid,
    TrustedIssuer,
    ValidToken,
)

_OWN_KEYS: Final = "http://localhost/jwk"  # never leaves this process
_SENTENCES: Final[Mapping[str, str]] = {
    "expired": "It has expired",
    "wrong_audience": "It is for another API (aud)",
}


class _KeySetTransport(httpx.BaseTransport):
    """Answers the validator with one published key set, without a network."""

    def __init__(self, key_set: bytes) -> None:
        self._key_set = key_set

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return httpx.Response(200, content=self._key_set, headers=headers, request=request)


class OwnTokens:
    """Validates tokens of this issuer by the library we hand to every other provider.

    It reads the key set that this worker publishes. With each new key set a new validator begins,
    so that a key that was taken out of use opens nothing from that moment.
    """

    def __init__(
        self, issuer: str, key_set: Callable[[], bytes], clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        named = [issuer, *(issuer + below for below in ("api/v1", "external/api/v1"))]
        self._audiences = frozenset(named) | {one.rstrip("/") for one in named}
        self._key_set = key_set
        self._clock = clock
        self._read: bytes | None = None
        self._validator: AsyncValidator | None = None

    async def validate(self, authorization: str | None) -> ValidToken:
        """The token in an Authorization header. Raises Refused: ACCESS_TOKEN_…; Unavailable."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refused(Reason.ACCESS_TOKEN_MISSING)
        try:
            valid = await self._current().validate(token.strip(), now=self._clock())
        except TokenInvalid as fault:
            sentence = _SENTENCES.get(fault.code, "It is not one of ours")
            raise Refused(Reason.ACCESS_TOKEN_INVALID, str(fault), named=(sentence,)) from fault
        except KeysUnavailable as fault:
            raise Unavailable(str(fault)) from fault
        if valid.audiences and valid.audiences.isdisjoint(self._audiences):
            sentence = _SENTENCES["wrong_audience"]
            raise Refused(Reason.ACCESS_TOKEN_INVALID, named=(sentence,))
        return valid

    def _current(self) -> AsyncValidator:
        key_set = self._key_set()
        if self._validator is None or key_set is not self._read:
            self._read = key_set  # the validator before holds no socket; its callers finish with it
            self._validator = AsyncValidator(
                [TrustedIssuer(self._issuer, jwks_url=_OWN_KEYS)],
                policy=Policy(operator="self-service", cool_down=1),
                http=httpx.Client(transport=_KeySetTransport(key_set)),
            )
        return self._validator


def caller_of(token: ValidToken, registry: Registry) -> Caller:
    """Who calls, with the scopes that still are theirs. Raises Refused: ACCESS_TOKEN_INVALID."""
    if token.consumer.orgno is None:
        raise Refused(Reason.ACCESS_TOKEN_INVALID, named=("Its consumer has no orgno",))
    orgno, client_id = OrgNo(token.consumer.orgno), ClientId(token.client_id)
    return Caller(
        orgno=orgno,
        client_id=client_id,
        scopes=living_scopes(client_id, orgno, token.scopes, registry),
        client_amr=str(token.claims.get("client_amr", "")),
        jti=token.jti or "",
    )
