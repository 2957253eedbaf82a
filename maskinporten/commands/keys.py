"""`keys`: our signing keys, by hand.

Each part says what will happen, and stops where it is not safe unless `--yes` is given.
`keys/runbooks` tells when to use which.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskinporten.administration import administer
from maskinporten.app import open_keyring, open_store, rotation_policy
from maskinporten.commands.canary import add_canary_part, canary_lines, evidence_lines
from maskinporten.domain.keystep import (
    ByHand,
    Plan,
    StepRefused,
    adopt,
    find_kid,
    instant,
    plan,
    published_first,
    spares_needed,
    standing,
)
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.rotation import RotationPolicy, activation_at, of_stage, ready_at
from maskinporten.domain.signing import PUBLISHED, SealedKey, SigningRequest, Stage
from maskinporten.errors import Fault, InvalidInput
from maskinporten.keyring import Keyring
from maskinporten.replica import Replica
from maskinporten.settings import Settings
from maskinporten.store import Store

_PARTS = {
    ByHand.PREPARE: "publish a further spare key",
    ByHand.ACTIVATE: "let a prepared key sign, or go back to a retired one",
    ByHand.RETIRE: "let the next key sign; or, of a spare, never let it sign",
    ByHand.REMOVE: "take a retired key out of /jwk",
    ByHand.ROTATE: "let the next key sign, and publish a spare after it",
    ByHand.REVOKE: "take a compromised key out of /jwk and out of use, at once",
}
_NAMED = {ByHand.REMOVE, ByHand.REVOKE}  # acts that never choose by themselves
_HEARD = 3.0  # seconds within which every worker has heard of a commit
OPERATOR = {"kind": "operator"}


@dataclass(frozen=True, slots=True)
class Bench:
    """Where an operator works on the keys: the parts of a server that hold them, and no server."""

    settings: Settings
    policy: RotationPolicy
    store: Store
    replica: Replica
    keyring: Keyring

    @property
    def keys(self) -> tuple[SealedKey, ...]:
        """The signing keys as they were last read."""
        return tuple(self.replica.registry.signing_keys.values())

    async def write(self, decide: Callable[[Registry], Change], command: str) -> None:
        """Commit what `decide` finds right on the newest registry."""
        now = int(time.time())
        await administer(self.store, self.replica, decide, OPERATOR, command, now)


@asynccontextmanager
async def bench(leaving: str = "") -> AsyncIterator[Bench]:
    """The keys of the settings' database. Raises KeyDoesNotOpen before anything is sealed anew.

    The key whose name begins with `leaving` need not open: it is on its way out.
    """
    settings = Settings.from_environ()
    policy = rotation_policy(settings)
    store = await open_store(settings.database_url, settings.sqlite_synchronous)
    try:
        await store.migrate()
        keyring = open_keyring(settings, policy)
        replica = Replica(store, time.time)
        registry = await replica.catch_up()
        keys = [
            key
            for key in registry.signing_keys.values()
            if not leaving or not key.kid.startswith(leaving)
        ]
        keyring.load(Registry().with_entities(registry.revision, keys))
        yield Bench(settings, policy, store, replica, keyring)
    finally:
        await store.close()


def add_parser(commands: Any) -> None:
    """Declare the command and its parts."""
    command = commands.add_parser(
        "keys",
        help="see and move the signing keys",
        description="Rotation goes by itself; this is for doing it by hand. It reads the same "
        "MASKINPORTEN_… variables as `serve`, and works while servers run.",
    )
    parts = command.add_subparsers(title="parts", metavar="PART", required=True)
    shown = parts.add_parser("list", help="every key, and what becomes of it")
    shown.add_argument("--json", action="store_true", help="for programs")
    shown.add_argument("--stage", type=Stage, choices=list(Stage), help="kids of that stage alone")
    shown.set_defaults(run=lambda a: asyncio.run(_list(a)))
    status = parts.add_parser("status", help="what signs, what is next, and when")
    status.set_defaults(run=lambda a: asyncio.run(_status(a)))
    for act, told in _PARTS.items():
        part = parts.add_parser(act.value, help=told, description=f"To {told}.")
        if act is not ByHand.PREPARE and act is not ByHand.ROTATE:
            part.add_argument(
                "kid", metavar="KID", nargs=None if act in _NAMED else "?", default="",
                help="the key's name, or its beginning",
            )  # fmt: skip
        if act is ByHand.PREPARE:
            part.add_argument("--hsm", action="store_true", help="make it in the PKCS #11 token")
        if act is ByHand.REVOKE:
            part.add_argument("--reason", default="", help="kept with the key")
        part.add_argument("--yes", action="store_true", help="though it is not safe")
        part.set_defaults(run=lambda a, act=act: asyncio.run(_act(a, act)))
    add_canary_part(parts, bench)
    _add_certificate_parts(parts)


def _add_certificate_parts(parts: Any) -> None:
    csr = parts.add_parser("csr", help="a new key, and a request for its certificate")
    csr.add_argument("--out", type=Path, required=True, metavar="FILE", help="PEM, PKCS #10")
    csr.add_argument("--bits", type=int, choices=[2048, 3072, 4096], help="as in the settings")
    csr.add_argument("--name", default="", help="commonName; the issuer if it is left out")
    csr.add_argument("--organization", default="", help="organizationName")
    csr.add_argument("--orgno", default="", help="organizationIdentifier, NTRNO-…")
    csr.set_defaults(run=lambda a: asyncio.run(_csr(a)))
    taken = parts.add_parser("import", help="a certificate that an authority has issued")
    taken.add_argument(
        "files", type=Path, nargs="+", metavar="FILE",
        help="PEM, DER or PKCS #7, the chain in one file or in several; or one PKCS #12",
    )  # fmt: skip
    taken.add_argument("--password-file", type=Path, metavar="FILE", help="of a PKCS #12")
    taken.set_defaults(run=lambda a: asyncio.run(_import(a)))
    rewrap = parts.add_parser("rewrap", help="seal every key under the key-encryption key in force")
    rewrap.set_defaults(run=lambda _: asyncio.run(_rewrap()))


async def _list(arguments: argparse.Namespace) -> int:
    async with bench() as at:
        now = int(time.time())
        keys = published_first(at.keys)
        if arguments.json:
            print(json.dumps([_row(key, at.policy, now) for key in keys], indent=2))
            return 0
        if arguments.stage is not None:
            print("\n".join(key.kid for key in keys if key.stage is arguments.stage))
            return 0
        for key in keys:
            place = "  (in the token)" if key.token and key.stage in PUBLISHED else ""
            print(f"{key.kid}  {key.stage:<8}  {standing(key, at.policy, now)}{place}")
        for request in at.replica.registry.signing_requests.values():
            if request.sealed:
                print(f"{request.kid}  request   waits for a certificate")
    return 0


def _row(key: SealedKey, policy: RotationPolicy, now: int) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "stage": key.stage.value,
        "standing": standing(key, policy, now),
        "prepared": key.prepared,
        "ready": ready_at(key, policy),
        "activated": key.activated,
        "retired": key.retired,
        "removed": key.removed,
        "revoked": key.revoked,
        "reason": key.reason,
        "certificate_end": key.certificate_end,
    }


async def _status(_arguments: argparse.Namespace) -> int:
    async with bench() as at:
        keys, now = at.keys, int(time.time())
        lines = [*status_lines(keys, at.policy, now), *canary_lines(keys)]
        lines += evidence_lines(await at.store.fetches(), keys, at.policy, now)
        print("\n".join(lines))
    return 0


def status_lines(keys: Sequence[SealedKey], policy: RotationPolicy, now: int) -> list[str]:
    """What signs, what is next and when, and what leaves; one sentence each."""
    prepared = of_stage(keys, Stage.PREPARED)
    lines = [f"{k.kid} {standing(k, policy, now)}" for k in of_stage(keys, Stage.ACTIVE)]
    lines += [f"{k.kid} is prepared; it {standing(k, policy, now)}" for k in prepared]
    due = activation_at(keys, policy)
    if prepared and due is not None:
        lines.append(f"the next activation is at {instant(max(due, now))}")
    elif prepared:
        lines.append("the next key is not activated by itself (MASKINPORTEN_ROTATION_PERIOD is 0)")
    else:
        lines.append("no spare is prepared; a running server makes one within a minute")
    retired = of_stage(keys, Stage.RETIRED)
    return [*lines, *(f"{k.kid} is retired; it {standing(k, policy, now)}" for k in retired)]


async def _act(arguments: argparse.Namespace, act: ByHand) -> int:
    kid = getattr(arguments, "kid", "") or ""
    async with bench(kid if act in _NAMED else "") as at:
        try:
            if act is ByHand.REMOVE and (request := _waiting(at, kid)) is not None:
                return await _give_up(at, request)
            return await _carry_out(at, act, arguments)
        except StepRefused as fault:
            raise InvalidInput((Fault(f"keys {act}", str(fault)),)) from fault


def _waiting(at: Bench, kid: str) -> SigningRequest | None:
    """The request of that name, or of the only name that begins so."""
    requests = at.replica.registry.signing_requests.values()
    found = [one for one in requests if one.sealed and kid and one.kid.startswith(kid)]
    return found[0] if len(found) == 1 else None


async def _give_up(at: Bench, request: SigningRequest) -> int:
    gone = Change((replace(request, sealed=""),))
    await at.write(lambda _: gone, f"keys: remove {request.kid}")
    print(f"the request of {request.kid} is given up, and its private half is gone")
    return 0


async def _carry_out(at: Bench, act: ByHand, arguments: argparse.Namespace) -> int:
    kid = find_kid(at.keys, getattr(arguments, "kid", "") or "")
    reason = getattr(arguments, "reason", "")
    bits = at.settings.signing_key_bits
    number = spares_needed(act, kid, at.keys)
    in_token = getattr(arguments, "hsm", False)
    make = at.keyring.prepare_in_token if in_token else at.keyring.prepare
    fresh = [make(int(time.time()), bits) for _ in range(number)]
    planned: list[Plan] = []

    def decide(registry: Registry) -> Change:
        keys = tuple(registry.signing_keys.values())
        if spares_needed(act, kid, keys) > len(fresh):
            raise StepRefused("the keys changed meanwhile; run the command again")
        spare = fresh[: spares_needed(act, kid, keys)]
        found = plan(act, kid, keys, spare, at.policy, int(time.time()), reason)
        planned[:] = [found]
        if found.hazards and not arguments.yes:
            return Change(())
        return Change(found.keys)

    # Where this raises, the commit may have been made all the same: nothing is destroyed then.
    await at.write(decide, f"keys: {act} {kid}".rstrip())
    found = planned[0]
    at.keyring.forget(fresh, found.keys if arguments.yes or not found.hazards else ())
    if found.hazards and not arguments.yes:
        names = {key.kid for key in fresh}  # of keys that are forgotten again
        would = [line for line in found.follows if not any(name in line for name in names)]
        print(*(f"would: {line}" for line in would), sep="\n", flush=True)
        faults = [Fault("not safe", hazard) for hazard in found.hazards]
        faults.append(Fault("", "nothing was changed; add --yes to do it all the same"))
        raise InvalidInput(tuple(faults))
    print("\n".join(found.follows), flush=True)
    for hazard in found.hazards:
        print(f"done though not safe: {hazard}")
    removed = [key for key in found.keys if key.stage is Stage.REMOVED]
    if any(key.token for key in removed):
        # Until every worker has heard, one of them may still ask the token for a signature.
        await asyncio.sleep(_HEARD)
    for key in removed:
        at.keyring.destroy(key)
    return 0


async def _csr(arguments: argparse.Namespace) -> int:
    from maskinporten.signing_requests import subject_of, write_request  # noqa: PLC0415 - rare

    async with bench() as at:
        subject = subject_of(
            arguments.name or at.settings.issuer, arguments.organization, arguments.orgno
        )
        now, bits = int(time.time()), arguments.bits or at.settings.signing_key_bits
        request, pem = at.keyring.request(subject, now, bits)
        write_request(arguments.out, pem)
        await at.write(lambda _: Change((request,)), f"keys: csr {request.kid}")
    print(f"{arguments.out}: a request for {request.kid}, whose private half stays here, sealed")
    print("send it to the authority, then: maskinporten keys import ANSWER")
    return 0


async def _import(arguments: argparse.Namespace) -> int:
    from maskinporten.signing_requests import import_certificate  # noqa: PLC0415 - rare

    async with bench() as at:
        try:
            key, request = import_certificate(
                arguments.files,
                arguments.password_file,
                at.keyring,
                at.replica.registry,
                at.policy,
                int(time.time()),
            )
        except StepRefused as fault:
            raise InvalidInput((Fault(str(arguments.files[0]), str(fault)),)) from fault
        closed = (request,) if request is not None else ()
        now = int(time.time())

        def decide(registry: Registry) -> Change:
            keys = tuple(registry.signing_keys.values())
            return Change((*adopt(key, keys, now), *closed))

        await at.write(decide, f"keys: import {key.kid}")
        lines = status_lines(at.keys, at.policy, now)
    print(f"{key.kid} stands in /jwk with its certificate, and signs next")
    print("\n".join(lines))
    return 0


async def _rewrap() -> int:
    async with bench() as at:
        counted: list[int] = []

        def decide(registry: Registry) -> Change:
            keys = [at.keyring.rewrap(k) for k in registry.signing_keys.values() if k.sealed]
            waiting = [
                at.keyring.rewrap_request(request)
                for request in registry.signing_requests.values()
                if request.sealed
            ]
            counted[:] = [len(keys) + len(waiting)]
            return Change((*keys, *waiting))

        await at.write(decide, "keys: rewrap")
        published = sum(key.stage in PUBLISHED for key in at.keys)
    print(f"{counted[0]} keys are sealed under MASKINPORTEN_KEY_ENCRYPTION_KEY ({published} of "
          "them published); the previous one is not needed any more")  # fmt: skip
    return 0
