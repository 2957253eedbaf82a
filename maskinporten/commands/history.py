"""`explain` and `audit`: why a token is refused, and who changed what."""

import argparse
import asyncio
import sys
import time
from typing import Any

import msgspec

from maskinporten.app import open_services
from maskinporten.commands.registry import opened
from maskinporten.domain.altinn import delegation_questions
from maskinporten.domain.explanation import Explanation, explain, members, with_answers
from maskinporten.domain.members import instant
from maskinporten.domain.orgno import find_orgno
from maskinporten.domain.registry import Revision
from maskinporten.domain.weighing import Question, Verdict
from maskinporten.errors import Fault, InvalidInput, Unavailable
from maskinporten.history import entry_members, find_moment, registry_at
from maskinporten.replica import Replica
from maskinporten.settings import PREFIX, Settings

_PAGE = 200  # entries in one look


def add_parser(commands: Any) -> None:
    """Declare the two commands."""
    why = commands.add_parser(
        "explain",
        help="say why a grant would be refused or granted, rule by rule, now or in the past",
        description="Every rule between a grant and its token, with its verdict and who can mend "
        "it. A delegation is a question to its source, which is asked only with --ask-altinn.",
    )
    why.add_argument("--client", required=True, metavar="ID", help="the client_id (iss)")
    why.add_argument(
        "--scope", required=True, action="append", metavar="S", help="may be given several times"
    )
    why.add_argument("--consumer-org", metavar="ORGNO", help="for whom, by delegation")
    why.add_argument("--on-behalf-of", metavar="NAME", help="for whom, by iss_onbehalfof")
    why.add_argument("--kid", help="signed with this key; the longest-lived where left out")
    why.add_argument("--at", metavar="WHEN", help="a revision, or a time as 2026-01-31T12:00:00Z")
    why.add_argument(
        "--ask-altinn",
        action="store_true",
        help="ask the delegation source too; needs the settings of `serve`",
    )
    why.add_argument("--json", action="store_true", help="as JSON")
    why.set_defaults(run=lambda a: asyncio.run(_explain(a)))
    trail = commands.add_parser(
        "audit",
        help="show who changed what, newest first, a JSON object a line",
        description="The trail of all changes: who, what, when, before and after. The database "
        "refuses to rewrite it. `token_jti` leads to the line of the token log that names the key "
        "or certificate.",
    )
    trail.add_argument("--org", metavar="ORGNO", help="only what concerns this organisation")
    trail.add_argument("--entity", metavar="KIND/NAME", help="only this one, as client/my-client")
    trail.add_argument("--before", type=int, metavar="REV", help="only older than this revision")
    trail.add_argument("--limit", type=int, default=100, metavar="N", help="at most (100)")
    trail.set_defaults(run=lambda a: asyncio.run(_audit(a)))
    for command in (why, trail):
        command.add_argument("--database", metavar="URL", help=f"instead of {PREFIX}DATABASE_URL")


async def _explain(arguments: argparse.Namespace) -> int:
    question = Question(
        client_id=arguments.client,
        scope=" ".join(arguments.scope),
        consumer_org=arguments.consumer_org,
        iss_onbehalfof=arguments.on_behalf_of,
        kid=arguments.kid,
    )
    now = int(time.time())
    if arguments.ask_altinn and arguments.at is not None:
        raise InvalidInput((Fault("--ask-altinn", "answers for now alone, not for --at"),))
    async with opened(arguments.database) as store:
        registry = await Replica(store, time.time).catch_up()
        if arguments.at is not None:
            revision, now = await find_moment(store, arguments.at, registry.revision, now)
            registry = await registry_at(store, question, revision)
    told = explain(question, registry, now)
    if arguments.ask_altinn:
        told = await _ask(told, now)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(members(told)), indent=2).decode())
    else:
        print("\n".join(_screen(told)))
    return 0


async def _ask(told: Explanation, now: int) -> Explanation:
    """What the delegation source says. Where it cannot be asked the question stays open."""
    if told.entitlement is None or told.delegation is None:
        return told
    async with open_services(Settings.from_environ()) as services:
        if services.altinn is None:
            return with_answers(told, ())
        questions = delegation_questions(told.entitlement)
        try:
            return with_answers(
                told, await services.altinn.ask(told.delegation.source, questions, now)
            )
        except Unavailable as away:
            print(f"maskinporten: not asked: {away.detail}", file=sys.stderr)
            return told


def _screen(told: Explanation) -> list[str]:
    """For people: the answer, and a line for each rule, with what mends those that fail."""
    first = told.outcome
    if told.reason is not None:
        first += f": {told.reason.ref or told.reason.error} {told.reason.name}: {told.description}"
    if told.entitlement is not None:
        first += f": a token for {told.entitlement.consumer}"
        if told.entitlement.supplier:
            first += f", supplier {told.entitlement.supplier}"
    lines = [first, f"at revision {told.revision}, {instant(told.at)}", ""]
    for weighed in told.weighed:
        verdict = weighed.verdict.upper() if weighed.verdict is Verdict.FAILS else weighed.verdict
        lines.append(f"  {verdict:<7} {weighed.rule}. {weighed.sentence}")
        if weighed.remedy:
            lines.append(f"          -> {weighed.remedy}: {weighed.by}")
    return lines


async def _audit(arguments: argparse.Namespace) -> int:
    if arguments.org is not None and find_orgno(arguments.org) is None:
        raise InvalidInput((Fault("--org", "must be an organisation number of nine digits"),))
    if arguments.org is not None and arguments.entity is not None:
        raise InvalidInput((Fault("--entity", "cannot be used with --org"),))
    if arguments.limit < 0 or (arguments.before is not None and not 0 <= arguments.before < 2**62):
        raise InvalidInput((Fault("--limit, --before", "must not be negative, nor beyond all"),))
    subject, left = arguments.org or arguments.entity, arguments.limit
    before = None if arguments.before is None else Revision(arguments.before)
    async with opened(arguments.database) as store:
        while left > 0:
            records = await store.audit_trail(subject, before, min(left, _PAGE))
            if not records:
                break
            for record in records:
                sys.stdout.buffer.write(msgspec.json.encode(entry_members(record)) + b"\n")
            left -= len(records)
            before = records[-1].revision
    sys.stdout.flush()
    return 0
