"""Endpoints of the onboarding portal; one of its two bases is misspelt, and stays so."""

from typing import Final

from maskinporten.domain.client import ClientId
from maskinporten.domain.members import OnboardedMembers, OnboardingMembers, ScopeMembers
from maskinporten.domain.selfservice import onboarding
from maskinporten.domain.selfservice.caller import SHARE_DATA
from maskinporten.web.selfservice import views
from maskinporten.web.selfservice.endpoint import Endpoint

_CLIENT: Final = "/datasharing/consumer/client"


def _clients(base: str | None) -> tuple[Endpoint, ...]:
    return (
        Endpoint(
            method="GET", path=_CLIENT, summary="Your clients, for onboarding", right=SHARE_DATA,
            answer=lambda case, _call: onboarding.find_clients(case), view=views.onboarded,
            many=True, gives=OnboardedMembers, object_name="client", own_base=base,
        ),
        Endpoint(
            method="POST", path=_CLIENT, summary="Make a client with scopes and keys at once",
            right=SHARE_DATA,
            answer=lambda case, call: onboarding.onboard(
                case, call.body, ClientId(call.fresh_id), call.request
            ),
            view=views.onboarded, writes=True, takes=OnboardingMembers, required=("scopes",),
            gives=OnboardedMembers, object_name="client", own_base=base,
        ),
        Endpoint(
            method="DELETE", path=_CLIENT, summary="Put a client out of use", right=SHARE_DATA,
            answer=lambda case, call: onboarding.retire(case, call.wanted("client_id")),
            writes=True, query=("client_id!",), object_name="client", own_base=base,
        ),
    )  # fmt: skip


ONBOARDING_ENDPOINTS: Final = (
    Endpoint(
        method="GET", path="/datasharing/consumer/scope/access",
        summary="Scopes you have been given access to", right=SHARE_DATA,
        answer=lambda case, _call: onboarding.find_usable_scopes(case), view=views.scope,
        many=True, gives=ScopeMembers, object_name="scope",
    ),
    *_clients(None),
    *_clients("/api/vw1"),
)  # fmt: skip
