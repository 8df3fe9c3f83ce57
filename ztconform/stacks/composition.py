# SPDX-License-Identifier: Apache-2.0
"""Which combinations of components are a stack, read from its name `cni[+part...][:option...]`; pure.

What the components are is left to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from ztconform.errors import UsageError
from ztconform.stacks.component import Composition, Role

# Name -> role; also the order in which a stack's parts are installed and named.
PARTS: Mapping[str, Role] = MappingProxyType(
    {
        "kindnet": "cni",
        "calico": "cni",
        "cilium": "cni",
        "istio": "mesh",
        "linkerd": "mesh",
        "gateway": "gateway",
        "spire": "identity",
    }
)


@dataclass(frozen=True, slots=True)
class Option:
    """Say what an option does, and which parts take it."""

    what: str
    of: tuple[str, ...]


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "ambient": Option("ztunnel on every node in place of sidecars, and waypoints", ("istio",)),
        "dual": Option("IPv4 and IPv6", ("kindnet", "calico", "cilium")),
        "kpr": Option("Cilium in place of kube-proxy", ("cilium",)),
        "wireguard": Option("traffic between nodes is encrypted", ("calico", "cilium")),
    }
)

# What `ztconform stacks` lists; every other valid combination is taken too.
LISTED = (
    "kindnet",
    "calico",
    "calico:wireguard",
    "cilium",
    "cilium:wireguard",
    "cilium:kpr",
    "cilium:dual",
    "calico+istio",
    "cilium+istio",
    "cilium+istio+gateway",
    "kindnet+istio:ambient",
    "cilium+istio:ambient",
    "kindnet+linkerd",
    "calico+linkerd",
    "cilium+linkerd",
    "calico+spire",
)
CNIS = tuple(part for part, role in PARTS.items() if role == "cni")


def parse(text: str) -> Composition:
    """Return what a name says, in its canonical spelling; raises UsageError, in one line with all that is valid, for no stack."""
    words, *options = text.split(":")
    parts = words.split("+")
    if why := _fault(parts, options):
        raise UsageError(f"no stack is called {text!r}: {why}; {grammar()}")
    return compose(parts, options)


def compose(parts: Sequence[str], options: Sequence[str] | frozenset[str]) -> Composition:
    """Return the stack of these parts and options, which must be valid, by its canonical name."""
    ordered = tuple(sorted(parts, key=list(PARTS).index))
    name = "".join(["+".join(ordered), *(f":{option}" for option in sorted(options))])
    return Composition(name=name, parts=ordered, options=frozenset(options))


def is_valid(parts: Sequence[str], options: Sequence[str] | frozenset[str]) -> bool:
    """Return whether there is such a stack."""
    return not _fault(parts, sorted(options))


def grammar() -> str:
    """Return what is valid, in one clause."""
    options = ", ".join(f"{name} (of {' or '.join(option.of)})" for name, option in OPTIONS.items())
    parts = ", ".join(part for part in PARTS if part not in CNIS)
    return (
        "a stack is lab, lab+spire, custom, or CNI[+PART...][:OPTION...] of the CNIs "
        f"{', '.join(CNIS)}, the parts {parts} and the options "
        f"{options}, such as {', '.join(LISTED)}"
    )


def _fault(parts: Sequence[str], options: Sequence[str]) -> str:
    """Return why these are no stack, "" if they are one."""
    for word in parts:
        if word not in PARTS:
            return _unknown(word, "part", PARTS)
    for word in options:
        if word not in OPTIONS:
            return _unknown(word, "option", OPTIONS)
    if len(set(parts)) < len(parts) or len(set(options)) < len(options):
        return "something is named twice"
    if PARTS[parts[0]] != "cni":
        return f"{parts[0]} is no CNI, which comes first"
    for role, what in (("cni", "CNI"), ("mesh", "mesh")):
        if len([part for part in parts if PARTS[part] == role]) > 1:
            return f"a stack has one {what}"
    if "gateway" in parts and "istio" not in parts:
        return "the gateway is Istio's, and needs istio"
    if "spire" in parts and any(PARTS[part] == "mesh" for part in parts):
        return "a mesh issues identities of its own, and is not given SPIRE's"
    for word in options:
        if not set(OPTIONS[word].of) & set(parts):
            return f"the option {word} is one of {' and '.join(OPTIONS[word].of)}"
    return ""


def _unknown(word: str, what: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(word, known, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"{word!r} is no {what}{hint}"
