"""Why a grant would be refused or granted: every rule with its verdict, not only the first fault.

The answer itself comes from the rules the token endpoint runs (`find_signer`, `entitle`). The list
beside it weighs each rule alone, in the same order, so that all that must be mended is seen at
once; its first failing rule is the reason the token endpoint gives (tests/domain).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from maskinporten.domain.altinn import Confirmation, Yes, delegation_of
from maskinporten.domain.altinn import DelegationQuestion as AskedOfAltinn
from maskinporten.domain.authorization import Entitlement, LifetimeRule, authorize, entitle
from maskinporten.domain.client import ClientId
from maskinporten.domain.grant import Certificates, Grant, read_consumer_org, read_scopes
from maskinporten.domain.members import instant
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.scope import ScopeName
from maskinporten.domain.weighing import Question, Verdict, Weighed, find_amr, sees_signer, weigh
from maskinporten.errors import Reason, Refused


@dataclass(frozen=True, slots=True)
class DelegationQuestion:
    """What the delegation source will be asked; its answer is not ours to foresee."""

    source: str
    consumer: OrgNo
    supplier: OrgNo
    scopes: tuple[ScopeName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer: `reason` is None where the token endpoint would not refuse by our registry.

    A delegation that is still to be asked for stands in `delegation`.
    """

    question: Question
    revision: Revision
    at: int  # epoch seconds
    reason: Reason | None
    description: str
    weighed: tuple[Weighed, ...]
    entitlement: Entitlement | None = None
    delegation: DelegationQuestion | None = None

    @property
    def outcome(self) -> str:
        """`refused`, `granted`, or `depends` where something outside the registry decides."""
        if self.reason is not None:
            return "refused"
        return "depends" if any(w.verdict is Verdict.OPEN for w in self.weighed) else "granted"


def explain(
    question: Question,
    registry: Registry,
    now: int,
    certificates: Certificates | None = None,
    lifetime_rule: LifetimeRule = LifetimeRule.OVERRIDE,
    viewer: OrgNo | None = None,
) -> Explanation:
    """What the token endpoint would answer at `now` (epoch seconds), and every rule on the way.

    Without `certificates` a key that is locked to a certificate is taken to hold. `viewer` is the
    organisation that asks, None the operator; the keys of others' clients are taken to hold too.
    """
    weighed = tuple(weigh(question, registry, now, certificates, viewer))
    entitlement, refused = None, None
    try:
        entitlement = _entitlement(question, registry, now, certificates, lifetime_rule, viewer)
    except Refused as fault:
        refused = fault
    return Explanation(
        question=question,
        revision=registry.revision,
        at=now,
        reason=refused.reason if refused else None,
        description=refused.description if refused else "",
        weighed=weighed,
        entitlement=entitlement,
        delegation=_delegation(entitlement),
    )


def with_answers(told: Explanation, confirmations: Sequence[Confirmation]) -> Explanation:
    """The explanation once the delegation source was asked: what it said decides."""
    if told.entitlement is None or told.delegation is None:
        return told
    refused = None
    try:
        authorize(told.entitlement, delegation_of(told.entitlement, confirmations))
    except Refused as fault:
        refused = fault
    said = {
        each.question.scope: each
        for each in confirmations
        if isinstance(each.question, AskedOfAltinn)
    }
    weighed = []
    for rule in told.weighed:
        name = ScopeName(rule.rule.partition(": ")[0])
        found = said.get(name)
        if rule.verdict is not Verdict.OPEN or name not in told.delegation.scopes:
            weighed.append(rule)  # settled, or open for another reason: a certificate
        elif found is None:
            sentence = "There is no line to its delegation source."
            remedy = "name the source in MASKINPORTEN_ALTINN", "whoever runs this server"
            weighed.append(Weighed(rule.rule, Verdict.FAILS, sentence, *remedy))
        elif isinstance(found.answer, Yes):
            sentence = f"{found.source} confirms it ({found.how}): {found.answer.reference}."
            weighed.append(Weighed(rule.rule, Verdict.HOLDS, sentence))
        else:
            others = ", and spoke of others" if found.answer.mismatch else ""
            sentence = f"{found.source} does not confirm it ({found.how}{others})."
            weighed.append(replace(rule, verdict=Verdict.FAILS, sentence=sentence))
    return replace(
        told,
        reason=refused.reason if refused else None,
        description=refused.description if refused else "",
        weighed=tuple(weighed),
    )


def _delegation(entitlement: Entitlement | None) -> DelegationQuestion | None:
    if entitlement is None or entitlement.delegation_source is None or not entitlement.supplier:
        return None
    return DelegationQuestion(
        entitlement.delegation_source,
        entitlement.consumer,
        entitlement.supplier,
        entitlement.grant.scopes,
    )


def _entitlement(
    question: Question,
    registry: Registry,
    now: int,
    certificates: Certificates | None,
    lifetime_rule: LifetimeRule,
    viewer: OrgNo | None,
) -> Entitlement:
    """The token endpoint's own rules, in its order. Raises Refused."""
    client = registry.client(ClientId(question.client_id))
    amr = "private_key_jwt"
    if sees_signer(client, viewer):
        amr = find_amr(question, client, now, certificates)
    grant = Grant(
        client_id=client.client_id,
        client_amr=amr,
        scopes=read_scopes(question.scope),
        spend_key=b"",
        spent_until=now,
        consumer_org=read_consumer_org(question.consumer_org),
        iss_onbehalfof=question.iss_onbehalfof,
    )
    return entitle(grant, client, registry, lifetime_rule)


def members(told: Explanation) -> dict[str, Any]:
    """The explanation as JSON; absent members are absent."""
    shown: dict[str, Any] = {"outcome": told.outcome}
    if told.reason is not None:
        ref = {"code": told.reason.ref} if told.reason.ref else {}
        shown |= {
            "reason": told.reason.name,
            **ref,
            "error": told.reason.error,
            "error_description": told.description,
        }
    shown |= {"revision": told.revision, "at": instant(told.at)}
    if told.entitlement is not None:
        shown["consumer"] = told.entitlement.consumer
        if told.entitlement.supplier is not None:
            shown["supplier"] = told.entitlement.supplier
    if told.delegation is not None:
        shown["delegation"] = {
            "source": told.delegation.source,
            "consumer": told.delegation.consumer,
            "supplier": told.delegation.supplier,
            "scopes": list(told.delegation.scopes),
        }
    shown["rules"] = [
        {
            "rule": weighed.rule,
            "verdict": weighed.verdict,
            "sentence": weighed.sentence,
            **({"remedy": weighed.remedy, "by": weighed.by} if weighed.remedy else {}),
        }
        for weighed in told.weighed
    ]
    return shown
