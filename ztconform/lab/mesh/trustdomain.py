# SPDX-License-Identifier: Apache-2.0
"""Which names a name in a policy stands for, given the mesh's trust domains: the local one first, then its aliases.

How a name is compared with a certificate is left to `conditions`. The rules are those of Istio's pilot/pkg/security/trustdomain.
"""

from collections.abc import Sequence

_LOCAL = "cluster.local"  # in a policy: whatever the local trust domain is called
_PARTS = 5  # TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT


def expanded_principal(principal: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Return the principal once for each of the domains, if it names one of them or cluster.local; else as it is.

    A foreign domain, `*` for any domain, and what has not the five parts of a SPIFFE ID stay as they are; so does a
    domain with a `*` in front, in place of each of the domains that it matches.
    """
    domain, _, rest = principal.partition("/")
    if principal.count("/") != _PARTS - 1 or domain == "*":
        return (principal,)
    if domain != _LOCAL and not any(_touches(domain, each) for each in domains):
        return (principal,)
    names = (principal if _ends_as(each, domain) else f"{each}/{rest}" for each in domains)
    return tuple(dict.fromkeys(names))


def expanded_domain(domain: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Return all of the domains for one of them, else the domain as it is; cluster.local means nothing else here."""
    return tuple(dict.fromkeys(domains)) if domain in domains else (domain,)


def _touches(pattern: str, domain: str) -> bool:
    return pattern == domain or _ends_as(domain, pattern) or (pattern.endswith("*") and domain.startswith(pattern[:-1]))


def _ends_as(domain: str, pattern: str) -> bool:
    return pattern.startswith("*") and domain.endswith(pattern[1:])
