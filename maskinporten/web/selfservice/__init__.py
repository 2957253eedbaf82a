"""The self-service API over HTTP: parse, one call of a rule, render.

`endpoints` is the table of everything there is: it makes the routes and the OpenAPI document.
`desk` answers one request by one row of it. Rules are in `maskinporten.domain.selfservice`.
"""
