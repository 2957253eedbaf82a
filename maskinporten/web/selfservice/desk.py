"""One request to the self-service API: who, what, one rule, the answer.

A reading looks first whether the registry has moved on, which is one row of the database, so that
a caller reads its own writes whichever worker it meets. `Registry-Revision` on every answer says
what it rests on; in a request it says what the answer must rest on at least.
"""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from maskinporten.administration import administer
from maskinporten.domain.client import ClientId
from maskinporten.domain.grant import Certificates
from maskinporten.domain.jose import Malformed, read_object
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.selfservice.caller import Caller
from maskinporten.domain.selfservice.case import Case, Decision, entity_tag
from maskinporten.errors import Fault, InvalidInput, Unavailable
from maskinporten.replica import Replica
from maskinporten.store import Store
from maskinporten.validator import ValidToken
from maskinporten.web.answers import json_response, trace_id
from maskinporten.web.bearer import OwnTokens, caller_of
from maskinporten.web.selfservice.endpoint import MAX_PAGE_SIZE, Call, Endpoint, Past, digest
from maskinporten.web.selfservice.refusals import refusal

REVISION: Final = "registry-revision"
MAX_BODY: Final = 512 * 1024  # octets
BODY_DEADLINE: Final = 10.0  # seconds
_CHUNK: Final = 200  # things made into JSON before the token line has its turn
_MAX_REVISION: Final = 2**53
_IDEMPOTENT: Final = uuid.UUID("7c0ed4f8-6f0b-4d4f-9a55-4d6b0d6b3c1e")  # namespace of client ids
_MAX_KEY_LENGTH: Final = 255
_ANYONE: Final = Caller(orgno=OrgNo(""), client_id=ClientId(""))
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that self-service leans on.

    The writers of one worker stand in line, so that they do not overtake each other.
    """

    tokens: OwnTokens
    store: Store
    replica: Replica
    clock: Callable[[], float]
    certificates: Certificates | None = None
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, endpoint: Endpoint, request: Request) -> Response:
        """The answer, or the refusal, with the revision it rests on."""
        try:
            response = await self._answer(endpoint, request)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the caller gets an answer
            response = refusal(fault, trace_id(request.scope), endpoint.object_name)
        response.headers.setdefault(REVISION, str(self.replica.registry.revision))
        response.headers.setdefault("cache-control", "no-store")
        return response

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        token = None
        if endpoint.right is not None:
            token = await self.tokens.validate(request.headers.get("authorization"))
        registry = await self._fresh(request, always=token is not None)
        case = self._case(endpoint, request, token, registry)
        call = await _read_call(endpoint, request, token)
        if endpoint.writes and token is not None:
            return await self._write(endpoint, request, call, token)
        if endpoint.recall is not None:
            seen = await endpoint.recall(case, call, Past(self.store, self.certificates))
            return _shown(endpoint, request, seen, registry)
        found = endpoint.answer(case, call)
        if endpoint.many:
            return await _listing(endpoint, request, call, found, registry)
        return _shown(endpoint, request, found, registry)

    async def _write(
        self, endpoint: Endpoint, request: Request, call: Call, token: ValidToken
    ) -> Response:
        decided: list[Decision] = []

        def decide(registry: Registry) -> Change:
            decision = endpoint.answer(self._case(endpoint, request, token, registry), call)
            decided.append(decision)
            change: Change = decision.change
            return change

        caller = caller_of(token, self.replica.registry).audited()
        command = f"{endpoint.method} {endpoint.path}"
        now = int(self.clock())
        async with self.writing:
            await administer(self.store, self.replica, decide, caller, command, now)
        return _shown(endpoint, request, decided[-1].shown, self.replica.registry)

    def _case(
        self, endpoint: Endpoint, request: Request, token: ValidToken | None, registry: Registry
    ) -> Case:
        caller = _ANYONE
        if token is not None and endpoint.right is not None:
            caller = caller_of(token, registry)
            caller.verify(endpoint.right)
        return Case(
            caller=caller, registry=registry, now=int(self.clock()), if_match=_if_match(request)
        )

    async def _fresh(self, request: Request, *, always: bool) -> Registry:
        """The registry, not older than the caller has seen it. Raises Unavailable."""
        seen = request.headers.get(REVISION, "")
        least = int(seen) if seen.isdecimal() and len(seen) < len(str(_MAX_REVISION)) else 0
        registry = self.replica.registry
        if always or registry.revision < least:
            registry = await self.replica.catch_up()
        if registry.revision < least:
            raise Unavailable(f"the caller has seen revision {least}")
        return registry


async def _read_call(endpoint: Endpoint, request: Request, token: ValidToken | None) -> Call:
    body, octets = None, b""
    if endpoint.takes is not None:
        octets = await _read_body(request)
        body = _read_text(octets) if endpoint.takes is str else _read_json(octets)
    fresh_id, repeated = str(uuid.uuid4()), None
    key = request.headers.get("idempotency-key")
    if key is not None and endpoint.writes and token is not None:
        if not 0 < len(key) <= _MAX_KEY_LENGTH:
            raise InvalidInput((Fault("Idempotency-Key", "must have 1 to 255 characters"),))
        named = f"{token.consumer.orgno} {token.client_id} {key}"
        fresh_id, repeated = str(uuid.uuid5(_IDEMPOTENT, named)), digest(octets)
    return Call(
        path=request.path_params,
        query=dict(request.query_params),
        body=body,
        fresh_id=fresh_id,
        request=repeated,
    )


async def _read_body(request: Request) -> bytes:
    """The body, within bounds of size and time. Raises InvalidInput."""
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for part in request.stream():
                parts.append(part)
                length += len(part)
                if length > MAX_BODY:
                    raise InvalidInput((Fault("", "The body is longer than 512 KiB"),))
    except TimeoutError as fault:
        raise InvalidInput((Fault("", "The body came too slowly"),)) from fault
    except ClientDisconnect as fault:
        raise InvalidInput((Fault("", "The body did not come whole"),)) from fault
    return b"".join(parts)


def _read_json(octets: bytes) -> Any:
    try:
        return read_object(octets)
    except Malformed as fault:
        sentence = "The body must be one JSON object in UTF-8, with each name once"
        raise InvalidInput((Fault("", sentence),)) from fault


def _read_text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as fault:
        raise InvalidInput((Fault("", "The body must be text in UTF-8"),)) from fault


def _if_match(request: Request) -> frozenset[str] | None:
    """The entity tags of If-Match; weak ones match nothing (RFC 9110 section 13.1.1)."""
    header = request.headers.get("if-match")
    if header is None:
        return None
    tags = (one.strip() for one in header.split(","))
    return frozenset("*" if one == "*" else one.strip('"') for one in tags if one[:2] != "W/")


def _shown(endpoint: Endpoint, request: Request, thing: Any, registry: Registry) -> Response:
    headers = {REVISION: str(registry.revision)}
    if endpoint.gives is None:
        return Response(status_code=endpoint.status, headers=headers)
    if endpoint.tag is not None:
        headers["etag"] = f'"{entity_tag(endpoint.tag(thing))}"'
        if request.method == "GET" and headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    return json_response(endpoint.view(thing, registry), endpoint.status, headers)


async def _listing(
    endpoint: Endpoint, request: Request, call: Call, found: Iterable[Any], registry: Registry
) -> Response:
    """A bare array, in pieces, between which the token line has its turn.

    With `size` it is one page of it, and `Link` leads to the next (RFC 8288).
    """
    headers = {REVISION: str(registry.revision)}
    size = call.find_number("size", MAX_PAGE_SIZE)
    batches = _batches(iter(found), lambda thing: endpoint.view(thing, registry))
    if size:
        skipped, page = 0, call.find_number("page", _MAX_REVISION) or 0
        some: list[Any] = []
        for batch in batches:
            wanted = max(0, page * size - skipped)
            skipped += min(wanted, len(batch))
            some += batch[wanted:]
            if len(some) > size:
                after = request.url.include_query_params(page=page + 1)
                headers["link"] = f'<{after.path}?{after.query}>; rel="next"'
                break
            await asyncio.sleep(0)
        return json_response(some[:size], endpoint.status, headers)
    first = next(batches, [])
    second = next(batches, None)
    if second is None:
        return json_response(first, endpoint.status, headers)
    pieces = _pieces(itertools.chain([first, second], batches))
    return StreamingResponse(pieces, endpoint.status, headers, media_type="application/json")


def _batches(things: Iterator[Any], view: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """The views of so many things that were looked at; those that are None are not shown."""
    while looked := list(itertools.islice(things, _CHUNK)):
        yield [view(thing) for thing in looked if thing is not None]


async def _pieces(batches: Iterable[list[Any]]) -> AsyncIterator[bytes]:
    """One JSON array; the token line has its turn between any two pieces."""
    separator = b"["
    for batch in batches:
        if batch:
            yield separator + _ENCODER.encode(batch)[1:-1]
            separator = b","
        await asyncio.sleep(0)
    yield b"[]" if separator == b"[" else b"]"
