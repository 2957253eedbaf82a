"""Certificate policies along a path (RFC 5280 section 6.1), on the graph of RFC 9618.

The tree of RFC 5280 grows exponentially with hostile mappings; the graph holds each policy once
for each certificate, so its size is bounded by what the certificates say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from maskinporten.domain.link import ANY_POLICY, Invalid, Link

_ANY_ONLY: Final = frozenset({ANY_POLICY})


@dataclass(slots=True)
class _Node:
    """A policy at one depth: what its successors may be called, and what it stands under."""

    expected: frozenset[str]
    parents: frozenset[str]


_Level = dict[str, _Node]


@dataclass(slots=True)
class _State:
    """The state variables of RFC 5280 section 6.1.2; `levels` is None once the tree is NULL."""

    levels: list[_Level] | None
    explicit_policy: int
    policy_mapping: int
    inhibit_any: int


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """The inputs of RFC 5280 section 6.1.1 (c), (e), (f) and (g).

    `accepts` says which policies the user-initial-policy-set holds; None: any-policy.
    """

    accepts: Callable[[str], bool] | None = None
    explicit: bool = False
    inhibit_mapping: bool = False
    inhibit_any: bool = False


def verify_policies(path: Sequence[Link], inputs: PolicyInputs) -> frozenset[str]:
    """The policies that hold for the whole path, leaf last, without its anchor. Raises Invalid.

    The answer is the user-constrained policy set; `ANY_POLICY` in it means every accepted one.
    """
    length = len(path)
    state = _State(
        levels=[{ANY_POLICY: _Node(_ANY_ONLY, frozenset())}],
        explicit_policy=0 if inputs.explicit else length + 1,
        policy_mapping=0 if inputs.inhibit_mapping else length + 1,
        inhibit_any=0 if inputs.inhibit_any else length + 1,
    )
    for number, link in enumerate(path, start=1):
        last = number == length
        _process(state, link, last=last)
        if state.explicit_policy == 0 and state.levels is None:
            raise Invalid("a policy is required and none holds")
        if not last:
            _prepare(state, link)
    _wrap_up(state, path[-1])
    found = _user_constrained(state.levels, inputs.accepts)
    if state.explicit_policy == 0 and not found:
        raise Invalid("a policy is required and none that is accepted holds")
    return found


def _process(state: _State, link: Link, *, last: bool) -> None:
    """Steps (d) and (e) of section 6.1.3."""
    if state.levels is None or link.policies is None:
        state.levels = None
        return
    above = state.levels[-1]
    level: _Level = {}
    for policy in link.policies:
        if policy == ANY_POLICY:
            continue
        parents = frozenset(name for name, node in above.items() if policy in node.expected)
        if not parents and ANY_POLICY in above:
            parents = _ANY_ONLY
        if parents:
            level[policy] = _Node(frozenset({policy}), parents)
    may_be_any = state.inhibit_any > 0 or (not last and link.self_issued)
    if ANY_POLICY in link.policies and may_be_any:
        expected = frozenset().union(*(node.expected for node in above.values()))
        for policy in expected - level.keys():
            parents = frozenset(name for name, node in above.items() if policy in node.expected)
            level[policy] = _Node(frozenset({policy}), parents)
    state.levels.append(level)
    _prune(state)


def _prune(state: _State) -> None:
    """Take away what leads nowhere, from below; an empty graph is NULL."""
    levels = state.levels
    if levels is None:
        return
    for depth in range(len(levels) - 1, 0, -1):
        needed: frozenset[str] = frozenset().union(
            *(node.parents for node in levels[depth].values())
        )
        above = levels[depth - 1]
        levels[depth - 1] = {name: node for name, node in above.items() if name in needed}
    if not all(levels):
        state.levels = None


def _prepare(state: _State, link: Link) -> None:
    """Section 6.1.4, steps (a), (b), (h), (i) and (j)."""
    if any(ANY_POLICY in pair for pair in link.mappings):
        raise Invalid("anyPolicy is mapped")
    if state.levels is not None and link.mappings:
        _map(state, link)
    if not link.self_issued:
        state.explicit_policy = max(0, state.explicit_policy - 1)
        state.policy_mapping = max(0, state.policy_mapping - 1)
        state.inhibit_any = max(0, state.inhibit_any - 1)
    explicit, mapping = link.policy_constraints
    if explicit is not None:
        state.explicit_policy = min(state.explicit_policy, explicit)
    if mapping is not None:
        state.policy_mapping = min(state.policy_mapping, mapping)
    if link.inhibit_any is not None:
        state.inhibit_any = min(state.inhibit_any, link.inhibit_any)


def _map(state: _State, link: Link) -> None:
    if state.levels is None:
        return
    level = state.levels[-1]
    mapped: dict[str, set[str]] = {}
    for issuer_policy, subject_policy in link.mappings:
        mapped.setdefault(issuer_policy, set()).add(subject_policy)
    for policy, successors in mapped.items():
        if state.policy_mapping == 0:
            level.pop(policy, None)
        elif policy in level:
            level[policy].expected = frozenset(successors)
        elif ANY_POLICY in level:
            level[policy] = _Node(frozenset(successors), level[ANY_POLICY].parents)
    _prune(state)


def _wrap_up(state: _State, leaf: Link) -> None:
    """Section 6.1.5, steps (a) and (b)."""
    state.explicit_policy = max(0, state.explicit_policy - 1)
    if leaf.policy_constraints[0] == 0:
        state.explicit_policy = 0


def _user_constrained(
    levels: list[_Level] | None, accepts: Callable[[str], bool] | None
) -> frozenset[str]:
    """Section 6.1.5, step (g), as RFC 9618 section 5.4 puts it: the first names along each line."""
    if levels is None:
        return frozenset()
    domain = {
        policy
        for level in levels[1:]
        for policy, node in level.items()
        if policy != ANY_POLICY and ANY_POLICY in node.parents
    }
    if accepts is not None:
        domain = {policy for policy in domain if accepts(policy)}
    if ANY_POLICY in levels[-1]:
        domain.add(ANY_POLICY)
    return frozenset(domain)
