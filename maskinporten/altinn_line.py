"""A line to Altinn for one kind of question: a question becomes an answer, or nothing, in time.

It asks configured addresses only, follows no redirect, reads at most a quarter of a mebibyte of
JSON, and keeps at most a few calls under way. Where Altinn does not answer, a circuit opens: calls
are refused at once, until a question that the line asks by itself is answered again.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpcore  # noqa: F401 - httpx would import it late; a worker forked meanwhile would wait
import httpx

from maskinporten.domain.altinn import (
    Answer,
    Call,
    ConsentQuestion,
    No,
    Question,
    Unusable,
    call_of,
    read_answer,
)
from maskinporten.domain.authorization import Authorization
from maskinporten.domain.circuit import Circuit
from maskinporten.domain.client import OURSELVES
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.scope import ScopeName
from maskinporten.domain.signing import SigningKey
from maskinporten.domain.token import sign_token
from maskinporten.errors import Unavailable
from maskinporten.metrics import Metrics

MAX_ANSWER: Final = 256 * 1024  # octets
OWN_LIFETIME: Final = 120  # seconds a token of our own lives
OWN_MARGIN: Final = 20  # seconds before its end when it is made anew
_BREATH: Final = 0.05  # seconds
_JSON: Final = frozenset({"application/json", "application/problem+json"})
_log = logging.getLogger(__name__)


class OwnTokens:
    """Tokens that this server issues to itself, each kept until shortly before it expires.

    `consumer` is the organisation that runs the server; Altinn knows it as the one that may ask.
    """

    def __init__(
        self,
        issuer: str,
        consumer: OrgNo,
        signing_key: Callable[[], SigningKey],
        draw_jti: Callable[[], str],
        clock: Callable[[], float],
        audit: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._issuer = issuer
        self._consumer = consumer
        self._signing_key = signing_key
        self._draw_jti = draw_jti
        self._clock = clock
        self._audit = audit
        self._kept: dict[str, tuple[str, float, str]] = {}  # scope -> kid, issued at, token

    def bearer(self, scope: str) -> str:
        """The Authorization header's value. Raises Unavailable while no key signs."""
        key, now = self._signing_key(), self._clock()
        kid, issued, token = self._kept.get(scope, ("", 0.0, ""))
        if kid != key.kid or not issued <= now < issued + OWN_LIFETIME - OWN_MARGIN:
            right = Authorization(
                client_id=OURSELVES,
                client_amr="private_key_jwt",
                consumer=self._consumer,
                supplier=None,
                scopes=(ScopeName(scope),),
                lifetime=OWN_LIFETIME,
            )
            made = sign_token(right, key, self._issuer, int(now), self._draw_jti())
            token = made.token
            self._kept[scope] = key.kid, int(now), token
            self._audit(
                {
                    "event_name": "own_token_issued",
                    "event_created": int(now * 1000),
                    "client_id": OURSELVES,
                    "consumer": self._consumer,
                    "token_iss": self._issuer,
                    "token_jti": made.jti,
                    "token_lifetime_seconds": made.lifetime,
                    "token_scopes": [{"scope": scope, "delegation_source": None}],
                }
            )
        return f"Bearer {token}"

    def forget(self, scope: str) -> None:
        """The token was refused; the next one is new."""
        self._kept.pop(scope, None)


class _Missed(Exception):
    """No answer. `outcome` is the metric's label; `blame` tells whether the circuit counts it."""

    def __init__(self, outcome: str, detail: str, *, blame: bool, at_least: float = 0.0) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.blame = blame
        self.at_least = at_least


class Line:
    """Asks one Altinn one kind of question. `base` is where its paths begin.

    `deadline` is seconds for each question, `calls` how many are under way at most, `turned` is
    told when the circuit opens or closes.
    """

    def __init__(
        self,
        base: str,
        http: httpx.AsyncClient,
        own: OwnTokens,
        metrics: Metrics,
        timer: Callable[[], float],
        *,
        deadline: float,
        calls: int,
        turned: Callable[[], None],
    ) -> None:
        self.circuit = Circuit()
        self._base = base
        self._http = http
        self._own = own
        self._metrics = metrics
        self._timer = timer
        self._deadline = deadline
        self._room = asyncio.Semaphore(calls)
        self._turned = turned
        self._mending: asyncio.Task[None] | None = None
        self._answered: Question | None = None  # the newest that was

    async def ask(self, question: Question) -> Answer:
        """What Altinn says. Raises Unavailable, at once while the circuit is open."""
        if not self.circuit.admits(self._timer()):
            self._count("held")
            raise Unavailable("Altinn does not answer; nothing is asked for now", self._wait())
        return await self._ask(question)

    async def close(self) -> None:
        """Stop mending."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)

    async def _ask(self, question: Question) -> Answer:
        self.circuit = self.circuit.admitted()
        trial = self.circuit.trial
        try:
            answer = await self._within_deadline(question)
        except _Missed as missed:
            self._count(missed.outcome)
            was_open = self.circuit.is_open
            if missed.blame or (missed.outcome == "full" and trial):
                self.circuit = self.circuit.failed(self._timer(), trial, missed.at_least)
            elif missed.outcome != "full":
                self.circuit = self.circuit.answered(trial)
            self._turn(question, str(missed), was_open=was_open)
            raise Unavailable(f"Altinn: {missed}", self._wait()) from missed
        was_open = self.circuit.is_open
        self.circuit = self.circuit.answered(trial)
        self._answered = question
        self._turn(question, "answers again", was_open=was_open)
        mismatch = isinstance(answer, No) and answer.mismatch
        if mismatch:
            _log.warning("Altinn's answer was about others than asked: %s", type(question).__name__)
        self._count("mismatch" if mismatch else "no" if isinstance(answer, No) else "yes")
        return answer

    async def _within_deadline(self, question: Question) -> Answer:
        inside = False
        try:
            async with asyncio.timeout(self._deadline), self._room:
                inside = True
                return await self._exchange(question)
        except TimeoutError as fault:
            # Whoever did not get a place tells nothing about Altinn.
            outcome = "timeout" if inside else "full"
            raise _Missed(outcome, f"{self._deadline:g} s", blame=inside) from fault
        except Unavailable as fault:  # no key of ours to sign the question with
            raise _Missed("unreachable", fault.detail, blame=True) from fault
        except _Missed:
            raise
        except Exception as fault:
            # A defect of ours in reading an answer must not hold the circuit's one trial for ever.
            _log.exception("an answer of Altinn could not be read: %s", type(question).__name__)
            raise _Missed("unusable", type(fault).__name__, blame=False) from fault

    async def _exchange(self, question: Question) -> Answer:
        """One call; a second where our token was refused, or a kept connection was stale."""
        call = call_of(question)
        status, response_headers, octets = await self._call(call, again=True)
        if status == httpx.codes.UNAUTHORIZED:
            self._own.forget(call.scope)
            status, response_headers, octets = await self._call(call, again=False)
        kind = response_headers.get("content-type", "").partition(";")[0].strip().lower()
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise _Missed("unauthorized", f"status {status}", blame=status != httpx.codes.FORBIDDEN)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            away = response_headers.get("retry-after", "")
            seconds = float(away) if away.isdecimal() and len(away) < 6 else 1.0  # noqa: PLR2004
            raise _Missed("busy", f"status {status}", blame=True, at_least=max(seconds, 1.0))
        broken = status >= httpx.codes.INTERNAL_SERVER_ERROR
        # Altinn gives some problems of a consent the status 500.
        if broken and (kind not in _JSON or not isinstance(question, ConsentQuestion)):
            raise _Missed("error", f"status {status}", blame=True)
        # A status of the 400 kind is about the question, not about Altinn.
        blame = broken or status < httpx.codes.BAD_REQUEST
        if (octets or status == httpx.codes.OK) and kind not in _JSON:
            raise _Missed("unusable", f"status {status}, {kind[:80]!r}", blame=blame)
        try:
            return read_answer(question, status, octets)
        except Unusable as fault:
            raise _Missed("error" if broken else "unusable", str(fault), blame=blame) from fault

    async def _call(self, call: Call, *, again: bool) -> tuple[int, httpx.Headers, bytes]:
        request = self._http.build_request(
            call.method,
            self._base + call.path,
            params=dict(call.params) or None,
            json=call.body,
            headers={
                "authorization": self._own.bearer(call.scope),
                "accept": "application/json",
                "accept-encoding": "identity",
            },
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                return response.status_code, response.headers, await _read_body(response)
            finally:
                await response.aclose()
        except httpx.TimeoutException as fault:
            raise _Missed("timeout", type(fault).__name__, blame=True) from fault
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as fault:
            if again:
                return await self._call(call, again=False)
            raise _Missed("unreachable", type(fault).__name__, blame=True) from fault
        except httpx.TransportError as fault:
            words = f"{type(fault).__name__} {fault}"[:200]
            raise _Missed("unreachable", words, blame=True) from fault

    def _turn(self, question: Question, words: str, *, was_open: bool) -> None:
        """Tell of a circuit that opened or closed."""
        if was_open == self.circuit.is_open:
            return
        self._turned()
        if self.circuit.is_open:
            _log.error("%s is not asked for now: %s", self._base, words)
            if self._mending is None or self._mending.done():
                self._mending = asyncio.create_task(self._mend(question))
        else:
            _log.warning("%s %s", self._base, words)

    async def _mend(self, question: Question) -> None:
        """Ask by ourselves after each pause, so that no caller has to wait for the trial.

        What was answered before is asked again, if anything was: the question at which the circuit
        opened may be one that Altinn always fails at.
        """
        while (due := self.circuit.ask_again_at) is not None:
            await asyncio.sleep(max(_BREATH, due - self._timer()))
            if self.circuit.is_open and self.circuit.admits(self._timer()):
                try:
                    await self._ask(self._answered or question)
                except Unavailable:
                    continue

    def _wait(self) -> int:
        """Seconds a caller should wait before the same question."""
        due = self.circuit.ask_again_at
        return 2 if due is None else max(1, math.ceil(due - self._timer()) + 1)

    def _count(self, outcome: str) -> None:
        self._metrics.add("maskinporten_altinn_calls_total", f'outcome="{outcome}"')


async def _read_body(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _Missed("unusable", "an encoding we did not ask for", blame=True)
    octets = bytearray()
    async for part in response.aiter_raw():
        octets += part
        if len(octets) > MAX_ANSWER:
            raise _Missed("unusable", "a body that is too long", blame=True)
    return bytes(octets)
