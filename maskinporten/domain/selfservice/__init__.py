"""Self-service: what organisations may do with their own clients, scopes and accesses.

A decision takes a `Case` (who asks, on which registry, when) and what is asked, and gives a
`Decision`. Whose something is, is settled in `case` and nowhere else.
"""
