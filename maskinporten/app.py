"""Everything real is chosen here, and nowhere else: the parts, the loops, the routes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from maskinporten.altinn import Altinn, altinn_policy, open_altinn
from maskinporten.audit import AuditLog
from maskinporten.certificates import enterprise_verdicts, seal_verdicts
from maskinporten.domain.authorization import LifetimeRule
from maskinporten.domain.certificate import TrustStore
from maskinporten.domain.path import Authorities
from maskinporten.domain.revocation import Evidence, RevocationPolicy, authority_id
from maskinporten.domain.rotation import RotationPolicy
from maskinporten.drain import Drain
from maskinporten.errors import Fault, InvalidInput, Reason, Refused, Unavailable
from maskinporten.evidence import FetchLog
from maskinporten.expiry import ExpiryWatch
from maskinporten.health import WorkerHealth
from maskinporten.hsm import Token
from maskinporten.issuance import Issuance
from maskinporten.keyring import Keyring
from maskinporten.metrics import Metrics
from maskinporten.replay import SpentGrants, WithoutDatabase
from maskinporten.replica import Replica
from maskinporten.revocation import Revocation
from maskinporten.revocation_folder import folder_of_evidence
from maskinporten.rotation import Rotation
from maskinporten.settings import Settings
from maskinporten.spool import Spool
from maskinporten.store import Store
from maskinporten.store.postgres import open_postgres
from maskinporten.store.sqlite import open_sqlite
from maskinporten.trust import Trust, read_trust
from maskinporten.web import error_pages
from maskinporten.web.answers import error_body, json_response, refused_by, trace_id
from maskinporten.web.bearer import OwnTokens
from maskinporten.web.metadata import metadata_routes
from maskinporten.web.operations import operations_routes
from maskinporten.web.probe import probe_routes
from maskinporten.web.revocation import revocation_routes
from maskinporten.web.selfservice.desk import Desk
from maskinporten.web.selfservice.routes import selfservice_routes
from maskinporten.web.token import TokenEndpoint

CLIENT_METHODS: Final = ("private_key_jwt", "virksomhetssertifikat", "QCForESeal", "CForESeal")
_PATIENCE: Final = 1.0  # seconds before a worker that cannot start tries again
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one running worker."""

    settings: Settings
    store: Store
    replica: Replica
    keyring: Keyring
    rotation: Rotation
    spent: SpentGrants
    metrics: Metrics
    audit: AuditLog
    issuance: Issuance
    clock: Callable[[], float]
    trust: Trust
    revocation: Revocation
    expiry: ExpiryWatch
    fetches: FetchLog
    drain: Drain
    health: WorkerHealth
    altinn: Altinn | None

    def measure(self) -> str:
        """Put the gauges that are read, not counted; and give the lines that are neither."""
        self.metrics.put("maskinporten_registry_revision", self.replica.registry.revision)
        self.metrics.put("maskinporten_registry_age_seconds", self.replica.age)
        self.metrics.put("maskinporten_audit_lines_lost", self.audit.lost)
        for authority in self.trust.measured:
            lists = self.revocation.evidence.lists.get(authority_id(authority.link), ())
            promised = max((found.next_update for found in lists), default=0)
            label = f'authority="{authority.sha256[:16]}"'
            self.metrics.put("maskinporten_revocation_list_until_seconds", promised, label)
        return self.expiry.exposition()


def open_trust(settings: Settings) -> Trust:
    """The trust directory of the settings; without one nothing is accepted. Raises InvalidInput."""
    if settings.trust is None:
        return Trust(TrustStore(Authorities(()), ()), (), RevocationPolicy())
    return read_trust(settings.trust, settings.environment)


async def open_store(database_url: str, synchronous: str = "normal") -> Store:
    """The store that the database URL names. Raises InvalidInput, Unavailable."""
    parts = urlsplit(database_url)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        return await open_sqlite(Path(parts.path), synchronous=synchronous.upper())
    if parts.scheme in {"postgresql", "postgres"} and parts.path.strip("/"):
        return await open_postgres(database_url)
    sentence = "must be sqlite:///absolute/path or postgresql://user:password@host/database"
    raise InvalidInput((Fault("MASKINPORTEN_DATABASE_URL", sentence),))


def rotation_policy(settings: Settings) -> RotationPolicy:
    """The policy of the settings. Raises InvalidInput where it could fail a validation."""
    try:
        return RotationPolicy(
            period=settings.rotation_period,
            lead=settings.rotation_lead,
            max_age=settings.jwks_max_age,
            cache=settings.rotation_cache,
            margin=settings.rotation_margin,
            evidence=settings.rotation_evidence,
            patience=settings.rotation_evidence_patience,
            canary=settings.canary_shares,
            ramp=settings.rotation_canary_time,
        )
    except ValueError as fault:
        raise InvalidInput((Fault("MASKINPORTEN_ROTATION_…", str(fault)),)) from fault


def open_keyring(
    settings: Settings, policy: RotationPolicy, clock: Callable[[], float] = time.time
) -> Keyring:
    """The keyring of the settings, still empty. Raises InvalidInput where the token is not."""
    previous = settings.key_encryption_key_previous
    token = None
    if settings.pkcs11_module is not None and settings.pkcs11_pin is not None:
        pin = settings.pkcs11_pin.reveal()
        token = Token(settings.pkcs11_module, settings.pkcs11_token, pin)
    return Keyring(
        settings.key_encryption_key.reveal(),
        settings.issuer,
        policy,
        clock,
        previous.reveal() if previous else None,
        token,
        new_in_token=settings.new_keys == "token",
    )


@asynccontextmanager
async def open_services(
    settings: Settings, clock: Callable[[], float] = time.time
) -> AsyncIterator[Services]:
    """Everything a worker needs, in order; closed in the reverse order.

    Raises InvalidInput, Unavailable, SchemaTooNew, KeyDoesNotOpen: nothing is served then.
    """
    policy = rotation_policy(settings)
    async with contextlib.AsyncExitStack() as stack:
        trust = open_trust(settings)
        metrics = Metrics(
            settings.metrics_file,
            refusals=[reason.name for reason in Reason],
            methods=CLIENT_METHODS,
            authorities=[a.sha256[:16] for a in trust.measured],
        )
        stack.callback(metrics.close)
        audit = AuditLog(settings.audit_log)
        stack.callback(audit.close)
        store = await open_store(settings.database_url, settings.sqlite_synchronous)
        stack.push_async_callback(store.close)
        await store.migrate()
        keyring = open_keyring(settings, policy, clock)
        replica = Replica(store, clock, settings.max_staleness)
        replica.on_change(keyring.load)
        rotation = Rotation(store, replica, keyring, policy, clock, settings.signing_key_bits)
        await rotation.advance()
        spool = Spool(settings.spool or Path(stack.enter_context(TemporaryDirectory())))
        stack.callback(spool.close)
        spent = SpentGrants(
            store, clock, metrics, spool, WithoutDatabase(settings.replay_without_database)
        )
        await spent.recover()
        stack.push_async_callback(spent.close)
        verdicts = enterprise_verdicts(trust.store, trust.revocation, Evidence())
        seals = seal_verdicts(trust.seals, trust.revocation, Evidence())

        def heard(evidence: Evidence) -> None:
            verdicts.heard(evidence)
            seals.heard(evidence)

        folder = folder_of_evidence(settings) or Path(stack.enter_context(TemporaryDirectory()))
        revocation = Revocation(
            trust.publishers,
            folder,
            clock,
            heard,
            settings.revocation_refresh,
            private_addresses=trust.private_addresses,
        )
        verdicts.watch, seals.watch = revocation.watch, revocation.watch_learning
        revocation.load()
        altinn = await stack.enter_async_context(
            open_altinn(
                altinn_policy(settings),
                settings.issuer,
                keyring.signing_key,
                metrics,
                clock,
                audit.write,
            )
        )
        issuance = Issuance(
            issuer=settings.issuer,
            audiences=settings.audiences,
            registry=replica.current,
            signing_key=keyring.signing_key,
            spend=spent.spend,
            delegations=altinn,
            lifetime_rule=LifetimeRule(settings.lifetime_rule),
            refuse_unknown_claims=settings.unknown_claims == "refuse",
            certificates=verdicts,
            seals=seals if trust.european else None,
            clock=clock,
        )
        expiry = ExpiryWatch(lambda: replica.registry, revocation.watched, clock)
        fetches = FetchLog(store, clock, settings.proxy_networks)
        drain = Drain(settings.metrics_file)
        loops = (
            replica.follow(), revocation.follow(), expiry.follow(), rotation.run(),
            fetches.follow(), drain.watch(),
        )  # fmt: skip
        for loop in loops:
            stack.push_async_callback(_stop, asyncio.create_task(loop))
        yield Services(
            settings, store, replica, keyring, rotation, spent, metrics, audit, issuance, clock,
            trust, revocation, expiry, fetches, drain,
            WorkerHealth(keyring, replica, spent, drain, altinn), altinn,
        )  # fmt: skip


async def _stop(loop: "asyncio.Task[None]") -> None:
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


def routes(services: Services) -> list[BaseRoute]:
    """Every path but /token."""
    tokens = OwnTokens(services.settings.issuer, lambda: services.keyring.key_set, services.clock)
    trusted = services.issuance.certificates
    desk = Desk(tokens, services.store, services.replica, services.clock, trusted)
    return [
        *metadata_routes(services.settings.issuer, services.keyring, services.fetches),
        *probe_routes(services.settings.issuer, services.keyring, services.clock),
        *error_pages.routes,
        *operations_routes(services.health.look, services.metrics, services.measure),
        *revocation_routes(services.trust.revocation, services.revocation.report, services.clock),
        *selfservice_routes(desk, services.settings.issuer),
    ]


class Application:
    """The ASGI application of one worker: /token goes straight to its endpoint."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._drain: Drain | None = None
        self._token: TokenEndpoint | None = None
        self._rest: Starlette | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and self._token is not None and self._rest is not None:
            if self._drain is not None and self._drain.begun:
                send = self._drain.closing(send)
            path = scope["path"]
            if path in {"/token", "/token/"}:
                await self._token(scope, receive, send)
            else:
                await self._rest(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with contextlib.AsyncExitStack() as stack:
                self.open(await self._opened(stack))
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as fault:
            _log.exception("the worker cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(fault)})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _opened(self, stack: contextlib.AsyncExitStack) -> Services:
        """The parts, once the database lets us: a worker that died while it is away comes back."""
        while True:
            try:
                return await stack.enter_async_context(open_services(self._settings, self._clock))
            except Unavailable as away:
                _log.warning("this worker waits for the database: %s", away)
                await asyncio.sleep(_PATIENCE)

    def open(self, services: Services) -> None:
        """Begin to answer with these parts."""
        self._drain = services.drain
        self._token = TokenEndpoint(
            services.issuance, services.clock, services.audit, services.metrics
        )
        self._rest = Starlette(
            routes=routes(services),
            exception_handlers={
                HTTPException: _answer_http_exception,
                Exception: _answer_http_exception,
            },
        )
        self._rest.state.issuer = self._settings.issuer


async def _answer_http_exception(request: Request, fault: Exception) -> Response:
    """Whatever a page raises, or a path nobody serves, in the shape of every other error."""
    trace = trace_id(request.scope)
    headers: dict[str, str] = {}
    if isinstance(fault, HTTPException):
        reasons = {404: Reason.NOT_FOUND, 405: Reason.METHOD_NOT_ALLOWED}
        headers = dict(fault.headers or {})
        fault = Refused(
            reasons.get(fault.status_code, Reason.REQUEST_MALFORMED), named=("Look at the path",)
        )
    refused = refused_by(fault, trace)
    body = error_body(refused, request.app.state.issuer, trace)
    return json_response(body, refused.reason.status, headers)


def create() -> Application:
    """The application as the server's workers load it: settings from the environment."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return Application(Settings.from_environ())
