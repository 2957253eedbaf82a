"""Endpoints for clients, their customers and, beside it in `keys`, their keys."""

from typing import Final

from maskinporten.domain.client import ClientId
from maskinporten.domain.members import ClientMembers, OnBehalfOfMembers
from maskinporten.domain.selfservice import clients
from maskinporten.domain.selfservice.caller import (
    CHANGE_CLIENTS,
    CHANGE_CUSTOMERS,
    MAKE_CLIENTS,
    READ_CLIENTS,
    READ_CUSTOMERS,
)
from maskinporten.web.selfservice import views
from maskinporten.web.selfservice.endpoint import Endpoint

_ONE: Final = "/clients/{client_id}"
_CUSTOMERS: Final = _ONE + "/onbehalfof"
_CUSTOMER: Final = _CUSTOMERS + "/{onbehalfof:path}"

CLIENT_ENDPOINTS: Final = (
    Endpoint(
        method="GET", path="/clients", summary="Your clients", right=READ_CLIENTS,
        answer=lambda case, call: clients.find_clients(
            case, inactive=call.flag("inactive"),
            integration_type=call.query.get("integration_type", "").lower() or None,
        ),
        view=views.client_in_list, many=True,
        query=("inactive", "integration_type", "page", "size"),
        gives=ClientMembers, object_name="client",
    ),
    Endpoint(
        method="POST", path="/clients", summary="Make a client", right=MAKE_CLIENTS,
        answer=lambda case, call: clients.make_client(
            case, call.body, ClientId(call.fresh_id), call.request
        ),
        view=views.client, writes=True, status=201, takes=ClientMembers, gives=ClientMembers,
        object_name="client", tag=lambda client: client,
    ),
    Endpoint(
        method="GET", path=_ONE, summary="One client", right=READ_CLIENTS,
        answer=lambda case, call: clients.read_client(
            case, call.path["client_id"], inactive=call.flag("inactive")
        ),
        view=views.client, query=("inactive",), gives=ClientMembers, object_name="client",
        tag=lambda client: client,
    ),
    Endpoint(
        method="PUT", path=_ONE, summary="Change a client; with active: true, bring it back",
        right=CHANGE_CLIENTS,
        answer=lambda case, call: clients.change_client(case, call.path["client_id"], call.body),
        view=views.client, writes=True, takes=ClientMembers, gives=ClientMembers,
        object_name="client", tag=lambda client: client,
    ),
    Endpoint(
        method="DELETE", path=_ONE, summary="Put a client out of use", right=MAKE_CLIENTS,
        answer=lambda case, call: clients.deactivate_client(case, call.path["client_id"]),
        writes=True, object_name="client",
    ),
    Endpoint(
        method="POST", path=_ONE + "/secret", summary="Always refused: machine clients have none",
        right=MAKE_CLIENTS,
        answer=lambda case, call: clients.refuse_secret(case, call.path["client_id"]),
        writes=True, gives=ClientMembers, object_name="client",
    ),
    Endpoint(
        method="GET", path=_CUSTOMERS, summary="Customers the client acts for",
        right=READ_CUSTOMERS,
        answer=lambda case, call: clients.find_customers(case, call.path["client_id"]),
        view=views.customer, many=True, gives=OnBehalfOfMembers, object_name="clientOnBehalfOf",
    ),
    Endpoint(
        method="POST", path=_CUSTOMERS, summary="Add a customer", right=CHANGE_CUSTOMERS,
        answer=lambda case, call: clients.add_customer(case, call.path["client_id"], call.body),
        view=views.customer, writes=True, status=201, takes=OnBehalfOfMembers,
        required=("onbehalfof", "orgno"),
        gives=OnBehalfOfMembers, object_name="clientOnBehalfOf", tag=lambda entry: entry,
    ),
    Endpoint(
        method="GET", path=_CUSTOMER, summary="One customer", right=READ_CUSTOMERS,
        answer=lambda case, call: clients.read_customer(
            case, call.path["client_id"], call.path["onbehalfof"]
        ),
        view=views.customer, gives=OnBehalfOfMembers, object_name="clientOnBehalfOf",
        tag=lambda entry: entry,
    ),
    Endpoint(
        method="PUT", path=_CUSTOMER, summary="Change a customer", right=CHANGE_CUSTOMERS,
        answer=lambda case, call: clients.change_customer(
            case, call.path["client_id"], call.path["onbehalfof"], call.body
        ),
        view=views.customer, writes=True, takes=OnBehalfOfMembers, required=("orgno",),
        gives=OnBehalfOfMembers,
        object_name="clientOnBehalfOf", tag=lambda entry: entry,
    ),
    Endpoint(
        method="DELETE", path=_CUSTOMER, summary="Take a customer away", right=CHANGE_CUSTOMERS,
        answer=lambda case, call: clients.remove_customer(
            case, call.path["client_id"], call.path["onbehalfof"]
        ),
        writes=True, object_name="clientOnBehalfOf",
    ),
)  # fmt: skip
