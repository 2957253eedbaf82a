"""The rules between a grant and its token, each weighed alone and told in a sentence.

The verdicts are for people; what the token endpoint would answer is `explanation`'s to say. Who
looks decides how much is told: the operator sees everything (`viewer` None), an organisation
nothing that the token endpoint would not tell its own clients.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from maskinporten.domain.client import MACHINE_CLIENTS, Client, ClientId, ClientKey
from maskinporten.domain.grant import (
    Certificates,
    UnverifiedGrant,
    find_signer,
    read_consumer_org,
    read_scopes,
)
from maskinporten.domain.members import instant
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import AccessState, Scope, ScopeName, Visibility
from maskinporten.errors import Reason, Refused


class Verdict(StrEnum):
    """What became of one rule."""

    HOLDS = "holds"
    FAILS = "fails"
    OPEN = "open"  # someone else answers when a token is asked for
    UNTOLD = "untold"  # nothing to weigh it on until what fails before it is mended


@dataclass(frozen=True, slots=True)
class Weighed:
    """One rule: its verdict, a sentence, and what would mend it, by whom."""

    rule: str
    verdict: Verdict
    sentence: str
    remedy: str = ""
    by: str = ""
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A grant as someone thinks of it: who asks for what, for whom, signed with which key.

    Without `kid` the client's key that lives longest is meant, or, where none is registered, a
    valid certificate of its organisation. Everything else about the grant is taken to be right.
    """

    client_id: str
    scope: str  # apart by spaces, as in the grant
    consumer_org: str | None = None
    iss_onbehalfof: str | None = None
    kid: str | None = None


def weigh(
    question: Question,
    registry: Registry,
    now: int,
    certificates: Certificates | None,
    viewer: OrgNo | None,
) -> Iterator[Weighed]:
    """Each rule alone, in the order of the token endpoint."""
    client: Client | None = registry.clients.get(ClientId(question.client_id))
    yield _registered(client)
    if sees_signer(client, viewer):
        yield from _weigh_signer(question, client, now, certificates)
    scopes = _read(question)
    yield _well_formed_scopes(scopes)
    consumer_org = _read_customer(question)
    if question.consumer_org is not None:
        yield _well_formed_customer(consumer_org)
    yield _right_kind(client)
    consumer, parties = _weigh_parties(question, client, consumer_org)
    yield from parties
    found = [(name, registry.scopes.get(name)) for name in scopes]
    for name, scope in found:
        yield _on_client(name, scope, client, viewer)
    for name, scope in found:
        yield _for_kind(name, scope, client, viewer)
    for name, scope in found:
        told = _sees_access(scope, client, consumer, viewer)
        yield _accessible(name, scope if told else None, consumer, registry)
    if question.iss_onbehalfof is not None or question.consumer_org is not None:
        for name, scope in found:
            yield _delegable(name, scope, found[0][1], question, client)


def find_amr(
    question: Question, client: Client, now: int, certificates: Certificates | None
) -> str:
    """How the client would be authenticated, by `find_signer`'s rules. Raises Refused."""
    kid = question.kid if question.kid is not None else _longest_lived(client)
    if kid is None:
        return "virksomhetssertifikat"
    if certificates is None:
        client = replace(client, keys=tuple(replace(key, x5c=()) for key in client.keys))
        return find_signer(_signed_with(kid, client), client, now).client_amr
    return find_signer(_signed_with(kid, client), client, now, certificates).client_amr


def _longest_lived(client: Client) -> str | None:
    return max(client.keys, key=lambda key: key.exp).kid if client.keys else None


def _signed_with(kid: str, client: Client) -> UnverifiedGrant:
    """A grant of which only the key's name matters."""
    return UnverifiedGrant("RS256", kid, None, client.client_id, {}, b"", b"", b"")


def _registered(client: Client | None) -> Weighed:
    rule, reason = "client is registered and active", Reason.CLIENT_UNKNOWN
    if client is None:
        return _fails(rule, "There is no client of that id.", reason, "register the client", "the "
                      "organisation that will use it")  # fmt: skip
    if not client.active:
        return _fails(rule, "The client is deactivated.", reason, "activate it", _owner(client))
    return _holds(rule, f"The client is registered to {client.client_orgno}.")


def _weigh_signer(
    question: Question, client: Client | None, now: int, certificates: Certificates | None
) -> Iterator[Weighed]:
    rule = "the grant's key speaks for the client"
    if client is None:
        yield _untold(rule)
        return
    kid = question.kid if question.kid is not None else _longest_lived(client)
    if kid is None:
        yield Weighed(
            rule,
            Verdict.OPEN,
            f"No key is registered: the grant must be signed with a valid certificate of "
            f"{client.client_orgno}, in x5c.",
        )
        return
    key = client.find_key(kid)
    try:
        find_amr(question, client, now, certificates)
    except Refused as refused:
        yield _unfit(rule, refused.reason, client, key)
        return
    until = instant(key.exp) if key else ""
    if key is not None and key.x5c and certificates is None:
        yield Weighed(rule, Verdict.OPEN, f"A key is registered until {until}, and it is locked to "
                      "a certificate, which must hold too.")  # fmt: skip
        return
    yield _holds(rule, f"The key is registered until {until}.")


def _unfit(rule: str, reason: Reason, client: Client, key: ClientKey | None) -> Weighed:
    if key is None:
        sentence = (
            f"The client has {len(client.keys)} registered keys, and none has that kid."
            if client.keys
            else "The client has no registered key; it may sign with a certificate, without kid."
        )
        return _fails(rule, sentence, reason, "register the key, or sign with a registered one",
                      _owner(client))  # fmt: skip
    if reason is Reason.KEY_EXPIRED:
        sentence = f"The key expired at {instant(key.exp)}."
        return _fails(rule, sentence, reason, "register the key anew, or another", _owner(client))
    sentence = "The certificate the key is locked to does not hold any more."
    return _fails(rule, sentence, reason, "register another key", _owner(client))


def _read(question: Question) -> tuple[ScopeName, ...]:
    try:
        return read_scopes(question.scope)
    except Refused:
        return ()


def _well_formed_scopes(scopes: tuple[ScopeName, ...]) -> Weighed:
    rule = "the scopes are well-formed"
    if scopes:
        return _holds(rule, f"{len(scopes)} asked for.")
    return _fails(
        rule,
        "The scopes must be 1 to 200 names of at most 255 characters, apart by spaces.",
        Reason.SCOPE_MALFORMED,
        "ask for well-formed scopes",
        "whoever runs the client",
    )


def _read_customer(question: Question) -> OrgNo | None:
    try:
        return read_consumer_org(question.consumer_org)
    except Refused:
        return None


def _well_formed_customer(consumer_org: OrgNo | None) -> Weighed:
    rule = "consumer_org is an organisation number"
    if consumer_org is not None:
        return _holds(rule, f"{consumer_org} is well-formed.")
    sentence = "It must be nine digits, the last a check digit."
    return _fails(rule, sentence, Reason.CLAIM_INVALID, "correct it", "whoever runs the client")


def _right_kind(client: Client | None) -> Weighed:
    rule = "the client is of a kind that gets machine tokens"
    if client is None:
        return _untold(rule)
    kind = client.integration_type
    if kind in MACHINE_CLIENTS:
        return _holds(rule, f"Its integration_type is {kind}.")
    return _fails(rule, f"Its integration_type is {kind}.", Reason.CLIENT_UNKNOWN,
                  "register another client, of integration_type maskinporten",
                  _owner(client))  # fmt: skip


def _weigh_parties(
    question: Question, client: Client | None, consumer_org: OrgNo | None
) -> tuple[OrgNo | None, list[Weighed]]:
    """The consumer, where there can be one, and the rules about who acts for whom."""
    if question.iss_onbehalfof is not None:
        rule = "iss_onbehalfof names a customer of the client, and is alone"
        if client is None:
            return None, [_untold(rule)]
        entry = client.find_on_behalf_of(question.iss_onbehalfof)
        if entry is None:
            return None, [_fails(rule, "The client has no such customer.",
                                 Reason.ON_BEHALF_OF_INVALID, "register the customer on the client",
                                 _owner(client))]  # fmt: skip
        if question.consumer_org is not None:
            return entry.orgno, [_fails(rule, "It cannot be used with consumer_org.",
                                        Reason.ON_BEHALF_OF_INVALID, "leave one of them out",
                                        "whoever runs the client")]  # fmt: skip
        return entry.orgno, [_holds(rule, f"The consumer is {entry.orgno}.")]
    if question.consumer_org is None:
        return (client.client_orgno if client else None), []
    rule = "consumer_org is another organisation than the client's"
    if client is None or consumer_org is None:
        return consumer_org, [_untold(rule)]
    if consumer_org == client.client_orgno:
        sentence = f"{consumer_org} owns the client, and needs no delegation."
        reason, by = Reason.CONSUMER_IS_CLIENT, "whoever runs the client"
        return consumer_org, [_fails(rule, sentence, reason, "leave consumer_org out", by)]
    return consumer_org, [
        _holds(rule, f"{client.client_orgno} acts as supplier for {consumer_org}.")
    ]


def _on_client(
    name: ScopeName, scope: Scope | None, client: Client | None, viewer: OrgNo | None
) -> Weighed:
    rule, reason = (
        f"{name}: exists, is active, and stands on the client",
        Reason.SCOPE_NOT_ON_CLIENT,
    )
    if client is None:
        return _untold(rule)
    nowhere = scope is None and viewer is None
    if name not in client.scopes and not nowhere:
        # The same whether the scope exists or not: a client's owner may not know of it.
        remedy = "add the scope to the client, once it exists and is open to the organisation"
        return _fails(
            rule, "The scope is not registered on the client.", reason, remedy, _owner(client)
        )
    if scope is None:
        return _fails(rule, "There is no such scope.", reason, "correct the name", _owner(client))
    if not scope.active:
        return _fails(rule, "The scope is deactivated.", reason, "activate the scope", _api(scope))
    return _holds(rule, f"It belongs to {scope.owner_orgno}.")


def _for_kind(
    name: ScopeName, scope: Scope | None, client: Client | None, viewer: OrgNo | None
) -> Weighed:
    rule = f"{name}: is for clients of this kind"
    if client is None or scope is None or not _sees(scope, client, viewer):
        return _untold(rule)
    types = scope.allowed_integration_types
    if not types or client.integration_type in types:
        return _holds(rule, f"{client.integration_type} is allowed.")
    return _fails(rule, f"It is for {', '.join(types)}, and the client is "
                  f"{client.integration_type}.", Reason.SCOPE_NOT_FOR_CLIENT_TYPE,
                  f"allow {client.integration_type} on the scope", _api(scope))  # fmt: skip


def _accessible(
    name: ScopeName, scope: Scope | None, consumer: OrgNo | None, registry: Registry
) -> Weighed:
    rule = f"{name}: is open to the consumer"
    if scope is None or consumer is None:
        return _untold(rule)
    if scope.accessible_for_all:
        return _holds(rule, "It is accessible for all.")
    access = registry.accesses.get((name, consumer))
    if access is not None and access.state is AccessState.APPROVED:
        return _holds(rule, f"{scope.owner_orgno} has given {consumer} access.")
    state = f"the access is {access.state}" if access is not None else "there is no access"
    return _fails(rule, f"{scope.owner_orgno} has not given {consumer} access: {state}.",
                  Reason.SCOPE_NOT_GRANTED, f"give {consumer} access to the scope",
                  _api(scope))  # fmt: skip


def _delegable(
    name: ScopeName,
    scope: Scope | None,
    first: Scope | None,
    question: Question,
    client: Client | None,
) -> Weighed:
    rule = f"{name}: may be used for a customer in this way"
    if client is None or scope is None or first is None or name not in client.scopes:
        return _untold(rule)
    source = scope.delegation_source
    if question.iss_onbehalfof is not None:
        if not source:
            return _holds(rule, "It has no delegation source.")
        return _fails(rule, f"It is delegated through {source}, never by iss_onbehalfof.",
                      Reason.ON_BEHALF_OF_INVALID, "use consumer_org",
                      "whoever runs the client")  # fmt: skip
    if source is None:
        return _fails(rule, "It has no delegation source, so nobody can delegate it.",
                      Reason.SCOPE_NOT_DELEGATED, "give the scope a delegation source",
                      _api(scope))  # fmt: skip
    if source != first.delegation_source:
        return _fails(rule, f"It is delegated through {source}, and {first.name} is not.",
                      Reason.SCOPE_NOT_DELEGATED, "ask for the scopes in grants apart",
                      "whoever runs the client")  # fmt: skip
    return Weighed(
        rule,
        Verdict.OPEN,
        f"{source} is asked whether {question.consumer_org} has delegated it to the client's "
        "organisation.",
        "delegate the scope in Altinn, if that was not done",
        f"the consumer, {question.consumer_org}",
    )


def sees_signer(client: Client | None, viewer: OrgNo | None) -> bool:
    """Whether the client's keys are the viewer's business."""
    if viewer is None or client is None:
        return True
    return viewer in {client.client_orgno, client.supplier_orgno}


def _sees(scope: Scope, client: Client, viewer: OrgNo | None) -> bool:
    """Whether the viewer may know that the scope exists."""
    known = viewer is None or viewer == scope.owner_orgno or scope.name in client.scopes
    return known or scope.visibility is Visibility.PUBLIC


def _sees_access(
    scope: Scope | None, client: Client | None, consumer: OrgNo | None, viewer: OrgNo | None
) -> bool:
    """Whether the viewer may know what the consumer has been given."""
    if scope is None or viewer is None or viewer == scope.owner_orgno:
        return True
    if client is None or not _sees(scope, client, viewer):
        return False
    return scope.name in client.scopes or consumer == viewer


def _owner(client: Client) -> str:
    return f"the client's owner, {client.client_orgno}"


def _api(scope: Scope) -> str:
    return f"the scope's owner, {scope.owner_orgno}"


def _holds(rule: str, sentence: str) -> Weighed:
    return Weighed(rule, Verdict.HOLDS, sentence)


def _untold(rule: str) -> Weighed:
    return Weighed(rule, Verdict.UNTOLD, "Cannot be told until what fails above is mended.")


def _fails(rule: str, sentence: str, reason: Reason, remedy: str, by: str) -> Weighed:
    return Weighed(rule, Verdict.FAILS, sentence, remedy, by, reason)
