"""POST /token (RFC 6749 section 3.2, RFC 7523 section 2.1): parse, one call, render.

A bare ASGI callable: the framework's form reader would cost as much as our whole JSON work, and
takes what must be refused (repeated parameters, other media types).
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from starlette.types import Receive, Scope, Send

from maskinporten.audit import AuditLog
from maskinporten.domain.certificate import ProvenCertificate
from maskinporten.domain.client import JWT_BEARER
from maskinporten.domain.grant import MAX_ASSERTION_LENGTH, Assertion
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.seal import SealHolder
from maskinporten.errors import Reason, Refused
from maskinporten.issuance import Issuance, Issued, issue_token
from maskinporten.metrics import Metrics
from maskinporten.web.answers import send_error, send_json, trace_id

MAX_BODY: Final = MAX_ASSERTION_LENGTH  # octets, of the body and of the query alike
MAX_PARAMETERS: Final = 64
_WORD: Final = 64  # octets; names and the grant type are shorter, an assertion is not
BODY_DEADLINE: Final = 10.0  # seconds from the first octet to the last
_FORM: Final = b"application/x-www-form-urlencoded"
_CHARSETS: Final = frozenset({b"", b"charset=utf-8", b'charset="utf-8"'})


class CallerLeft(Exception):
    """The connection closed before the request was whole; there is nobody to answer."""


class TokenEndpoint:
    """The token endpoint as an ASGI application."""

    def __init__(
        self,
        issuance: Issuance,
        clock: Callable[[], float],
        audit: AuditLog,
        metrics: Metrics,
    ) -> None:
        self._issuance = issuance
        self._clock = clock
        self._audit = audit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Every outcome is counted and stands in the audit."""
        started = time.perf_counter()
        trace = trace_id(scope)
        now = int(self._clock())
        try:
            form = await read_form(scope, receive)
            issued = await issue_token(self._issuance, _read_assertion(form), now)
        except CallerLeft:
            return
        except Exception as fault:  # noqa: BLE001 - whatever it is, the caller gets an answer
            refused = await send_error(send, fault, self._issuance.issuer, trace)
            self._metrics.token_refused(refused.reason.name, time.perf_counter() - started)
            self._audit.write(_refusal(refused, self._clock(), trace))
            return
        await send_json(send, 200, issued.token.response())
        self._metrics.token_issued(issued.signer.client_amr, time.perf_counter() - started)
        self._audit.write(_issue(issued, self._issuance.issuer, self._clock(), trace))


def malformed(sentence: str, detail: str = "") -> Refused:
    """What is wrong with the request itself, in a constant sentence for its author."""
    return Refused(Reason.REQUEST_MALFORMED, detail or sentence, named=(sentence,))


def _read_assertion(form: dict[str, str]) -> Assertion:
    grant_type = form.get("grant_type")
    if not grant_type:
        raise Refused(Reason.GRANT_TYPE_MISSING)
    if grant_type != JWT_BEARER:
        raise Refused(Reason.GRANT_TYPE_UNSUPPORTED, repr(grant_type)[:80])
    assertion = form.get("assertion")
    if not assertion:
        raise Refused(Reason.ASSERTION_MISSING)
    return Assertion(assertion)


async def read_form(scope: Scope, receive: Receive) -> dict[str, str]:
    """The parameters, each once, from the body; or from the query where the body is empty.

    One production client posts its parameters in the query string. Raises Refused:
    METHOD_NOT_ALLOWED, REQUEST_MALFORMED; and CallerLeft.
    """
    if scope["method"] != "POST":
        raise Refused(Reason.METHOD_NOT_ALLOWED, scope["method"][:20])
    query: bytes = scope["query_string"]
    body = await _read_body(receive)
    if body and not _is_form(scope["headers"]):
        raise malformed("Send application/x-www-form-urlencoded")
    if len(query) > MAX_BODY:
        raise malformed("The query is longer than 64 KiB")
    form = parse_form(body)
    if query:
        in_query = parse_form(query)
        if form.keys() & in_query.keys():
            raise malformed("A parameter stands in the query and in the body")
        if not body:
            return in_query
    return form


def parse_form(octets: bytes) -> dict[str, str]:
    """application/x-www-form-urlencoded with every name once. Raises Refused."""
    if not octets:
        return {}
    fields = octets.split(b"&", MAX_PARAMETERS)
    form: dict[str, str] = {}
    try:
        for field in fields:
            name, _, value = field.partition(b"=")
            key = _unquote(name)
            if key in form:
                raise malformed("A parameter stands twice", repr(key[:80]))
            form[key] = _unquote(value)
    except UnicodeDecodeError as fault:
        raise malformed("The parameters are not UTF-8") from fault
    if len(fields) > MAX_PARAMETERS:
        raise malformed(f"There are more than {MAX_PARAMETERS} parameters")
    return form


def _unquote(octets: bytes) -> str:
    return _unquote_word(octets) if len(octets) <= _WORD else _unquote_text(octets)


@lru_cache(maxsize=64)
def _unquote_word(octets: bytes) -> str:
    """The same few words come with every request."""
    return _unquote_text(octets)


def _unquote_text(octets: bytes) -> str:
    text = octets.decode()
    return unquote_plus(text, errors="strict") if "%" in text or "+" in text else text


async def _read_body(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerLeft
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        try:
            async with asyncio.timeout(BODY_DEADLINE):
                body = await _read_rest(receive, body)
        except TimeoutError as fault:
            raise malformed("The body came too slowly") from fault
    if len(body) > MAX_BODY:
        raise malformed("The body is longer than 64 KiB")
    return body


async def _read_rest(receive: Receive, begun: bytes) -> bytes:
    parts, length, more = [begun], len(begun), True
    while more and length <= MAX_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def _is_form(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    found = [value for name, value in headers if name == b"content-type"]
    if len(found) != 1:
        return False
    kind, _, parameters = found[0].lower().partition(b";")
    return kind.strip() == _FORM and parameters.strip(b" ;") in _CHARSETS


def _issue(issued: Issued, issuer: str, at: float, trace: str) -> dict[str, Any]:
    """The audit entry of a token; the names are those of Maskinporten's own audit events."""
    authorization, signer = issued.authorization, issued.signer
    source = authorization.delegation_source
    return {
        "event_name": "token_issued",
        "event_created": int(at * 1000),
        "correlation_id": trace,
        "client_id": authorization.client_id,
        "consumer": _name(authorization.consumer),
        "supplier": authorization.supplier,
        "client_on_behalf_of_id": issued.grant.iss_onbehalfof,
        "client_amr": signer.client_amr,
        "kid": signer.kid,
        **_certificate(signer.certificate),
        "aud": authorization.resources,
        "token_iss": issuer,
        "token_jti": issued.token.jti,
        "token_lifetime_seconds": issued.token.lifetime,
        "token_scopes": [
            {"scope": scope, "delegation_source": source} for scope in authorization.scopes
        ],
        **_confirmations(issued),
    }


def _name(consumer: OrgNo | SealHolder) -> str:
    return consumer.identifier if isinstance(consumer, SealHolder) else consumer


def _confirmations(issued: Issued) -> dict[str, Any]:
    """What others were asked about, and how fresh their answers are."""
    if not issued.confirmations:
        return {}
    return {"confirmations": [each.audited() for each in issued.confirmations]}


def _certificate(certificate: ProvenCertificate | None) -> dict[str, Any]:
    if certificate is None:
        return {}
    return {
        "certificate_issuer": certificate.issuer,
        "certificate_serial_number": str(certificate.serial),
        "certificate_not_after": certificate.not_after,
        "certificate_sha256": certificate.sha256,
        "revocation_evidence": certificate.evidence,
    }


def _refusal(refused: Refused, at: float, trace: str) -> dict[str, Any]:
    return {
        "event_name": "token_refused",
        "event_created": int(at * 1000),
        "correlation_id": trace,
        "reason": refused.reason.name,
        "ref": refused.reason.ref,
        "detail": refused.detail,
        **refused.certificate,
    }
