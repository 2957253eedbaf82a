"""Asks Altinn what was delegated, approved or consented to; remembers answers briefly.

Equal questions under way are asked once. Positive and negative answers are kept apart, each for
its own short time. When Altinn cannot be asked the grant is refused with 503 and is not spent.
"""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from cachetools import TTLCache

from maskinporten.altinn_line import Line, OwnTokens
from maskinporten.domain.altinn import (
    QUESTIONS,
    Answer,
    Confirmation,
    DelegationQuestion,
    How,
    Question,
    Yes,
    at_time,
)
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.signing import SigningKey
from maskinporten.errors import Fault, InvalidInput, Unavailable
from maskinporten.metrics import Metrics
from maskinporten.settings import PREFIX, Settings

MAX_REMEMBERED: Final = 20_000  # answers of each kind
AT_ONCE: Final = 8  # calls for one grant at a time
_JTI_OCTETS: Final = 32
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = "such as https://www.altinn.no/=https://platform.altinn.no/"
_Key = tuple[str, Question]


@dataclass(frozen=True, slots=True, kw_only=True)
class AltinnPolicy:
    """How Altinn is asked; all times in seconds."""

    lines: Mapping[str, str]  # delegation source -> base address, the first for all else
    orgno: OrgNo  # whose our own tokens are
    deadline: float = 2.0  # for one question
    calls: int = 16  # under way at once, to one Altinn, for one kind of question
    waiting: int = 32  # grants that may wait at once; the next is told to come again
    remember: float = 30.0
    remember_no: float = 5.0
    grace: float = 0.0  # beyond `remember`, for delegations alone, while Altinn does not answer


class Altinn:
    """The `Delegations` of one worker. Made by `open_altinn`."""

    def __init__(
        self,
        policy: AltinnPolicy,
        http: httpx.AsyncClient,
        own: OwnTokens,
        metrics: Metrics,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        # Each kind of question has a line of its own: one that makes Altinn fail stops no other.
        self._lines = {
            (source, kind): Line(
                base,
                http,
                own,
                metrics,
                timer,
                deadline=policy.deadline,
                calls=policy.calls,
                turned=self._turned,
            )
            for source, base in policy.lines.items()
            for kind in QUESTIONS
        }
        self._positive = _memory(policy.remember, timer)
        self._negative = _memory(policy.remember_no, timer)
        self._lately = _memory(policy.remember + policy.grace if policy.grace else 0, timer)
        self._asking: dict[_Key, asyncio.Task[Answer]] = {}
        self._waiting = 0
        self._turned()  # A worker that died while its circuit was open left a 1 in the figures.

    @property
    def away(self) -> bool:
        """Whether an Altinn is not asked for now, because it does not answer."""
        return any(line.circuit.is_open for line in self._lines.values())

    async def ask(
        self, source: str | None, questions: Sequence[Question], now: float
    ) -> tuple[Confirmation, ...]:
        """See `issuance.Delegations.ask`. Raises Unavailable, within two deadlines."""
        source = source if source is not None else next(iter(self._policy.lines))
        if source not in self._policy.lines:
            self._count("unknown_source")
            return ()
        found = {each: self._recall((source, each)) for each in questions}
        unknown = [question for question, answer in found.items() if answer is None]
        learned = await self._learn_all(source, unknown) if unknown else {}
        confirmations = []
        for question, remembered in found.items():
            if remembered is not None:
                answer, how = remembered, How.REMEMBERED
                self._count("remembered")
            else:
                answer, how = learned[question]
            answer = at_time(answer, now)
            confirmations.append(Confirmation(question, answer, source, how))
        return tuple(confirmations)

    async def close(self) -> None:
        """Let go of what is under way."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        for line in self._lines.values():
            await line.close()

    async def _learn_all(
        self, source: str, questions: Sequence[Question]
    ) -> dict[Question, tuple[Answer, How]]:
        if self._waiting >= self._policy.waiting:
            self._count("full")
            raise Unavailable("too many grants wait for Altinn", 1)
        self._waiting += 1
        room = asyncio.Semaphore(AT_ONCE)

        async def learn(question: Question) -> tuple[Answer, How]:
            async with room:
                return await self._learn((source, question))

        try:
            async with asyncio.timeout(2 * self._policy.deadline):
                outcomes = await asyncio.gather(*map(learn, questions), return_exceptions=True)
        except TimeoutError as fault:
            raise Unavailable("Altinn did not answer all questions in time") from fault
        finally:
            self._waiting -= 1
        learned = {}
        for question, outcome in zip(questions, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            learned[question] = outcome
        return learned

    async def _learn(self, key: _Key) -> tuple[Answer, How]:
        """An answer for everyone who asks the same now; who leaves does not stop it."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda done: self._asked(key, done))
        try:
            return await asyncio.shield(task), How.ASKED
        except Unavailable:
            lately = self._lately.get(key)
            if lately is None:
                raise
            self._metrics.add("maskinporten_altinn_grace_total")
            return lately, How.GRACE

    async def _ask(self, key: _Key) -> Answer:
        source, question = key
        answer = await self._lines[source, type(question)].ask(question)
        if isinstance(answer, Yes):
            self._positive[key] = answer
            if isinstance(question, DelegationQuestion):
                self._lately[key] = answer
        else:
            self._lately.pop(key, None)
            if not answer.mismatch:
                self._negative[key] = answer
        return answer

    def _asked(self, key: _Key, done: "asyncio.Task[Answer]") -> None:
        self._asking.pop(key, None)
        if not done.cancelled():
            done.exception()  # Whoever waits has it; without anyone it is no news.

    def _recall(self, key: _Key) -> Answer | None:
        return self._positive.get(key) or self._negative.get(key)

    def _turned(self) -> None:
        self._metrics.put("maskinporten_altinn_away", float(self.away))

    def _count(self, outcome: str) -> None:
        self._metrics.add("maskinporten_altinn_calls_total", f'outcome="{outcome}"')


def altinn_policy(settings: Settings) -> AltinnPolicy | None:
    """The policy of the settings; None where there is no line. Raises InvalidInput."""
    if not settings.altinn and not settings.altinn_orgno:
        return None
    orgno = find_orgno(settings.altinn_orgno)
    pairs = [pair.partition("=") for pair in settings.altinn.split()]
    faults = [
        *(("ALTINN", sentence) for source, _, base in pairs if (sentence := _fault(source, base))),
        *(
            (name, f"must be {least:g} to {most:g}")
            for name, value, least, most in (
                ("ALTINN_DEADLINE", settings.altinn_deadline, 0.1, 30),
                ("ALTINN_CALLS", settings.altinn_calls, 1, 1000),
                # Others must get through while all of these places are taken.
                ("ALTINN_WAITING", settings.altinn_waiting, 1, settings.backpressure - 1),
                ("ALTINN_REMEMBER", settings.altinn_remember, 0, 600),
                ("ALTINN_REMEMBER_NO", settings.altinn_remember_no, 0, 600),
                ("ALTINN_GRACE", settings.altinn_grace, 0, 86_400),
            )
            if not least <= value <= most
        ),
    ]
    if not pairs:
        faults.append(("ALTINN", f"must be set beside {PREFIX}ALTINN_ORGNO; {_EXAMPLE}"))
    if orgno is None:
        sentence = "must be the organisation that runs this server: nine digits, as registered"
        faults.append(("ALTINN_ORGNO", sentence))
    if faults or orgno is None:
        raise InvalidInput(tuple(Fault(PREFIX + name, sentence) for name, sentence in faults))
    return AltinnPolicy(
        lines={source: base for source, _, base in pairs},
        orgno=orgno,
        deadline=settings.altinn_deadline,
        calls=settings.altinn_calls,
        waiting=settings.altinn_waiting,
        remember=settings.altinn_remember,
        remember_no=settings.altinn_remember_no,
        grace=settings.altinn_grace,
    )


def _fault(source: str, base: str) -> str | None:
    """What is wrong with one pair of a delegation source and a base address."""
    parts = urlsplit(base)
    if not source.endswith("/") or not base.endswith("/") or not parts.hostname:
        return f"must be pairs with final slashes; {_EXAMPLE}"
    if parts.query or parts.fragment or parts.username:
        return "must be addresses alone"
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return None
    return "must be https, except on the machine itself"


@asynccontextmanager
async def open_altinn(
    policy: AltinnPolicy | None,
    issuer: str,
    signing_key: Callable[[], SigningKey],
    metrics: Metrics,
    clock: Callable[[], float],
    audit: Callable[[Mapping[str, Any]], None],
) -> AsyncIterator[Altinn | None]:
    """The line to Altinn; None where none is configured, and then nothing is delegated.

    `audit` is told of each token that we issue to ourselves.
    """
    if policy is None:
        yield None
        return
    own = OwnTokens(
        issuer, policy.orgno, signing_key, lambda: secrets.token_urlsafe(_JTI_OCTETS), clock, audit
    )
    lines = len(policy.lines) * len(QUESTIONS)
    limits = httpx.Limits(max_connections=policy.calls * lines, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        timeout=policy.deadline, follow_redirects=False, limits=limits
    ) as http:
        altinn = Altinn(policy, http, own, metrics)
        try:
            yield altinn
        finally:
            await altinn.close()


def _memory(seconds: float, timer: Callable[[], float]) -> "TTLCache[_Key, Answer]":
    """Holds answers for so long; none where `seconds` is 0."""
    size = MAX_REMEMBERED if seconds > 0 and math.isfinite(seconds) else 0
    return _Memory(size, seconds, timer)


class _Memory(TTLCache[_Key, Answer]):
    """A memory without room forgets at once, instead of complaining."""

    def __setitem__(self, key: _Key, answer: Answer) -> None:
        if self.maxsize:
            super().__setitem__(key, answer)
