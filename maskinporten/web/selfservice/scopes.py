"""Endpoints for scopes, the access to them, and prefixes."""

from typing import Final

from maskinporten.domain.members import (
    AccessMembers,
    DelegationSourceMembers,
    OrganizationMembers,
    PrefixMembers,
    ScopeMembers,
    UserMembers,
)
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.scope import Organization
from maskinporten.domain.selfservice import accesses, prefixes, scopes
from maskinporten.domain.selfservice.caller import (
    ANY_ADMIN,
    ANY_TOKEN,
    READ_AS_OPERATOR,
    READ_SCOPES,
    WRITE_AS_OPERATOR,
    WRITE_SCOPES,
)
from maskinporten.domain.selfservice.case import Case
from maskinporten.errors import Reason, Refused
from maskinporten.web.selfservice import views
from maskinporten.web.selfservice.endpoint import Call, Endpoint

_ACCESS: Final = "/scopes/access/{consumer_orgno}"
_PREFIXES: Final = "/operator/prefixes"


def _wanted(call: Call) -> scopes.Wanted:
    kind = call.query.get("integration_type")
    return scopes.Wanted(
        prefix=call.query.get("prefix") or None,
        inactive=call.flag("inactive"),
        delegated=call.find_flag("delegated_sources"),
        accessible_for_all=call.find_flag("accessible_for_all"),
        integration_type=kind.lower() if kind else None,
    )


def _organization(case: Case, call: Call) -> Organization:
    found: Organization | None = case.registry.organizations.get(OrgNo(call.path["orgnr"]))
    if found is None:
        raise Refused(Reason.NOT_FOUND)
    return found


SCOPE_ENDPOINTS: Final = (
    Endpoint(
        method="GET", path="/scopes", summary="Your scopes", right=READ_SCOPES,
        answer=lambda case, call: scopes.find_scopes(
            case, name=call.query.get("scope") or None, inactive=call.flag("inactive")
        ),
        view=views.scope, many=True, query=("inactive", "scope", "page", "size"),
        gives=ScopeMembers, object_name="scope",
    ),
    Endpoint(
        method="POST", path="/scopes", summary="Make a scope under a prefix of yours",
        right=WRITE_SCOPES,
        answer=lambda case, call: scopes.make_scope(case, call.body),
        view=views.scope, writes=True, status=201, takes=ScopeMembers, gives=ScopeMembers,
        required=("description",),
        object_name="scope", tag=lambda scope: scope,
    ),
    Endpoint(
        method="PUT", path="/scopes", summary="Change a scope; with active: true, bring it back",
        right=WRITE_SCOPES,
        answer=lambda case, call: scopes.change_scope(case, call.wanted("scope"), call.body),
        view=views.scope, writes=True, query=("scope!",), takes=ScopeMembers, gives=ScopeMembers,
        object_name="scope", tag=lambda scope: scope,
    ),
    Endpoint(
        method="DELETE", path="/scopes", summary="Put a scope out of use", right=WRITE_SCOPES,
        answer=lambda case, call: scopes.deactivate_scope(case, call.wanted("scope")),
        view=views.scope, writes=True, query=("scope!",), gives=ScopeMembers,
        object_name="scope", tag=lambda scope: scope,
    ),
    Endpoint(
        method="GET", path="/scopes/scope", summary="One scope of yours", right=READ_SCOPES,
        answer=lambda case, call: scopes.read_scope(
            case, call.wanted("scope"), inactive=call.flag("inactive")
        ),
        view=views.scope, query=("scope!", "inactive"), gives=ScopeMembers, object_name="scope",
        tag=lambda scope: scope,
    ),
    Endpoint(
        method="GET", path="/scopes/all", summary="All public scopes; no token is needed",
        answer=lambda case, call: scopes.public_scopes(case.registry, _wanted(call)),
        view=views.scope, many=True,
        query=(
            "prefix", "inactive", "delegated_sources", "accessible_for_all", "integration_type",
            "page", "size",
        ),
        gives=ScopeMembers, object_name="scope",
    ),
    Endpoint(
        method="GET", path="/scopes/access", summary="Access you have given", right=READ_SCOPES,
        answer=lambda case, call: accesses.find_given(
            case, scope=call.query.get("scope") or None,
            consumer_orgno=call.query.get("consumer_orgno") or None,
            inactive=call.flag("inactive"),
        ),
        view=views.access, many=True,
        query=("scope", "consumer_orgno", "inactive", "page", "size"), gives=AccessMembers,
        object_name="scopeAccess",
    ),
    Endpoint(
        method="GET", path="/scopes/access/all", summary="Access you have been given",
        right=ANY_ADMIN,
        answer=lambda case, call: accesses.find_received(
            case, inactive=call.flag("inactive"),
            accessible_for_all=call.flag("accessible_for_all"),
        ),
        view=views.access, many=True, query=("inactive", "accessible_for_all", "page", "size"),
        gives=AccessMembers, object_name="scopeAccess",
    ),
    Endpoint(
        method="PUT", path=_ACCESS, summary="Give an organisation access to a scope",
        right=WRITE_SCOPES,
        answer=lambda case, call: accesses.grant(
            case, call.wanted("scope"), call.path["consumer_orgno"]
        ),
        view=views.access, writes=True, query=("scope!",), gives=AccessMembers,
        object_name="scopeAccess",
    ),
    Endpoint(
        method="DELETE", path=_ACCESS, summary="Withdraw an organisation's access to a scope",
        right=WRITE_SCOPES,
        answer=lambda case, call: accesses.withdraw(
            case, call.wanted("scope"), call.path["consumer_orgno"]
        ),
        view=views.access, writes=True, query=("scope!",), gives=AccessMembers,
        object_name="scopeAccess",
    ),
    Endpoint(
        method="GET", path="/prefix", summary="Your prefixes", right=READ_SCOPES,
        answer=lambda case, call: prefixes.find_prefixes(case, inactive=call.flag("inactive")),
        view=views.prefix, many=True, query=("inactive",), gives=PrefixMembers,
        object_name="scopePrefix",
    ),
    Endpoint(
        method="GET", path="/prefix/all", summary="All prefixes; no token is needed",
        answer=lambda case, call: prefixes.all_prefixes(
            case.registry, inactive=call.flag("inactive")
        ),
        view=views.prefix, many=True, query=("inactive", "page", "size"), gives=PrefixMembers,
        object_name="scopePrefix",
    ),
    Endpoint(
        method="GET", path="/delegationsources",
        summary="Where delegations are registered; no token is needed",
        answer=lambda case, _call: case.registry.delegation_sources.values(),
        view=views.delegation_source, many=True, gives=DelegationSourceMembers,
        object_name="delegationSource",
    ),
    Endpoint(
        method="GET", path="/organizations/{orgnr}",
        summary="The name of an organisation; no token is needed",
        answer=_organization, view=views.organization, gives=OrganizationMembers,
        object_name="organization",
    ),
    Endpoint(
        method="GET", path="/auth/user", summary="Whom your token speaks for", right=ANY_TOKEN,
        answer=lambda case, _call: case.caller, view=views.user, gives=UserMembers,
        object_name="user",
    ),
    Endpoint(
        method="GET", path=_PREFIXES, summary="For the operator: all prefixes",
        right=READ_AS_OPERATOR,
        answer=lambda case, call: prefixes.all_prefixes(
            case.registry, inactive=call.flag("inactive")
        ),
        view=views.prefix, many=True, query=("inactive", "page", "size"), gives=PrefixMembers,
        object_name="scopePrefix",
    ),
    Endpoint(
        method="POST", path=_PREFIXES, summary="For the operator: give out a prefix",
        right=WRITE_AS_OPERATOR,
        answer=lambda case, call: prefixes.give_prefix(case, call.body),
        view=views.prefix, writes=True, status=201, takes=PrefixMembers, gives=PrefixMembers,
        required=("prefix", "owner_orgno"),
        object_name="scopePrefix", tag=lambda prefix: prefix,
    ),
    Endpoint(
        method="PUT", path=_PREFIXES + "/{prefix}",
        summary="For the operator: change the owner of a prefix, or bring it back",
        right=WRITE_AS_OPERATOR,
        answer=lambda case, call: prefixes.change_prefix(case, call.path["prefix"], call.body),
        view=views.prefix, writes=True, takes=PrefixMembers, gives=PrefixMembers,
        object_name="scopePrefix", tag=lambda prefix: prefix,
    ),
    Endpoint(
        method="DELETE", path=_PREFIXES + "/{prefix}", summary="For the operator: take it back",
        right=WRITE_AS_OPERATOR,
        answer=lambda case, call: prefixes.take_prefix(case, call.path["prefix"]),
        view=views.prefix, writes=True, gives=PrefixMembers, object_name="scopePrefix",
        tag=lambda prefix: prefix,
    ),
)  # fmt: skip
