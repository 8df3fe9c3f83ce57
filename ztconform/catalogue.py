# SPDX-License-Identifier: Apache-2.0
"""What a zero-trust cluster must do: the requirements of `catalogue.toml`, read once and checked.

Which scenario proves a requirement is left to the scenarios; what a stack can prove, to its features.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from ztconform.errors import InternalError

Area = Literal["segmentation", "mtls", "authorization", "identity", "encryption", "resilience", "audit", "api"]

AREAS: tuple[Area, ...] = get_args(Area)
LETTERS: Mapping[str, Area] = MappingProxyType(dict(zip("NMAIERUC", AREAS, strict=True)))

# What a stack may declare; a requirement that needs anything else could never be proved on any stack.
FEATURES = frozenset(
    {
        "audit-mode",
        "authorization-audit",
        "authorization-dry-run",
        "client-tls",
        "deny-priority",
        "direct-calls",
        "disruption",
        "dns-policy",
        "dotted-accounts",
        "dual-stack",
        "egress-gateway",
        "encryption",
        "federation",
        "flow-log",
        "hbone",
        "host-network",
        "identity",
        "identity-pinning",
        "init-containers",
        "kubernetes-api",
        "l34",
        "l7-authz",
        "mtls",
        "node-ipblock",
        "node-port",
        "outsider",
        "packet-capture",
        "plaintext-by-address",
        "pod-ipblock",
        "spire",
        "staged-policy",
        "strict-encryption",
        "svid-rotation",
        "waypoint",
    }
)

_FIELDS = {"id", "sentence", "area", "features", "references"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Say one thing that a zero-trust cluster must do."""

    id: str
    sentence: str
    area: Area
    features: frozenset[str]  # what a stack needs for it
    references: tuple[str, ...] = ()  # NIST SP sections, CVE and GHSA identifiers, issues ("owner/repository#number")


@functools.cache
def load() -> Mapping[str, Requirement]:
    """Return every requirement by its ID, in the order of the catalogue.

    Raises InternalError if the catalogue is wrong.
    """
    return parse(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Mapping[str, Requirement]:
    """Return the requirements that a catalogue's text declares; raises InternalError for any fault in it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _fault(str(error)) from error
    if document.keys() != {"requirement"}:
        raise _fault(f"only [[requirement]] tables are expected, not {', '.join(sorted(document)) or 'nothing'}")
    found: dict[str, Requirement] = {}
    for entry in document["requirement"]:
        requirement = _requirement(entry)
        if requirement.id in found:
            raise _fault(f"{requirement.id} is there twice")
        found[requirement.id] = requirement
    return MappingProxyType(found)


def _requirement(entry: Mapping[str, Any]) -> Requirement:
    name = str(entry.get("id", "?"))
    if odd := entry.keys() ^ _FIELDS:
        raise _fault(f"{name}: unknown or missing {', '.join(sorted(odd))}")
    if not re.fullmatch("[A-Z][0-9]{2}", name):
        raise _fault(f"{name}: an ID is a letter and two digits")
    area = entry["area"]
    if area not in AREAS:
        raise _fault(f"{name}: unknown area {area!r}; areas are {', '.join(AREAS)}")
    if LETTERS.get(name[0]) != area:
        raise _fault(f"{name}: its letter is not that of the area {area}")
    if not entry["sentence"].strip():
        raise _fault(f"{name}: the sentence is empty")
    features = frozenset(entry["features"])
    if not features:
        raise _fault(f"{name}: it names no feature, so that any stack would have to prove it")
    if unknown := features - FEATURES:
        raise _fault(f"{name}: unknown feature {', '.join(sorted(unknown))}")
    return Requirement(
        id=name,
        sentence=entry["sentence"],
        area=cast(Area, area),
        features=features,
        references=tuple(entry["references"]),
    )


def _fault(what: str) -> InternalError:
    return InternalError(f"catalogue.toml: {what}; please report this")
