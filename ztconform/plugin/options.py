# SPDX-License-Identifier: Apache-2.0
"""The plugin's options: each is declared once, with an ini value of the same name, which the command line overrides.

What an option does is left to the module that asks for it, and whether the user can have meant it to `settings`.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

DEFAULT_STACK = "lab"

# Of what a stack is given. Those of one value, then those that may be repeated, then switches.
_VALUES = (
    ("ztc_context", "NAME", "Test the existing cluster of the kubeconfig context NAME"),
    ("ztc_kubeconfig", "FILE", "Look the context up in FILE (default: as kubectl does)"),
    ("ztc_kind_image", "IMAGE", "Make kind nodes of IMAGE"),
    ("ztc_kind_config", "FILE", "Merge FILE into the configuration of the kind cluster"),
    ("ztc_kind_bin", "PATH", "Use this kind (default: kind)"),
    ("ztc_helm_bin", "PATH", "Use this helm (default: helm)"),
    ("ztc_agent_image", "IMAGE", "Run our pods from IMAGE, which needs python3 >= 3.8"),
    ("ztc_image_registry", "REGISTRY", "Pull public images through the mirror REGISTRY"),
    ("ztc_pull_secret", "NAMESPACE/NAME", "Copy this pull secret into our namespaces"),
    ("ztc_cni_command", "CMD", "Install the CNI of the stack custom by CMD; {cluster} in it is the cluster's name"),
    ("ztc_nodes", "A,B", "Use these nodes only (default: every schedulable one)"),
    ("ztc_label_prefix", "DOMAIN", "Label what is ours with keys below DOMAIN (default: ztconform.io)"),
    ("ztc_outsider", "TEXT", "Say how a host outside an existing cluster is reached"),
    ("ztc_svid_ttl", "SECONDS", "Let the identities of the lab's mesh live so long (default: 3600)"),
    ("ztc_spire_server_bin", "PATH", "Use this spire-server (default: spire-server)"),
    ("ztc_spire_agent_bin", "PATH", "Use this spire-agent (default: spire-agent)"),
)
_LISTS = (
    ("ztc_load_image", "PATH", "Load an image archive, or a folder of them, into the kind nodes"),
    ("ztc_chart", "COMPONENT=DIR", "Install a component from this chart, a folder or an archive"),
    ("ztc_chart_version", "COMPONENT=VERSION", "Install a component from this version of its chart"),
    ("ztc_chart_repository", "COMPONENT=URL", "Get a component's chart from this repository (https:// or oci://)"),
    ("ztc_values", "COMPONENT=FILE", "Install a component with these helm values"),
    ("ztc_node_selector", "KEY=VALUE", "Put our pods on nodes with this label"),
    ("ztc_toleration", "KEY[=VALUE][:EFFECT]", "Let our pods tolerate this taint"),
    ("ztc_namespace_label", "KEY=VALUE", "Give our namespaces this label"),
    ("ztc_namespace_annotation", "KEY=VALUE", "Give our namespaces this annotation"),
)
_FLAGS = (
    ("ztc_keep", "Leave the cluster for the next run"),
    ("ztc_allow_disruptive", "Prove on an existing cluster also what disturbs more than our own namespaces"),
    ("ztc_privileged", "Let helpers run on their node's own network and capture our pods' packets, in a namespace of their own"),
)


def declare(parser: pytest.Parser) -> None:
    """Declare every option and ini value."""
    group = parser.getgroup("ztconform", "zero-trust conformance")
    what = f"Test the stack NAME (default: {DEFAULT_STACK}, or what --ztc-context turns out to be)"
    _value(parser, group, "ztc_stack", "NAME", what)
    _value(parser, group, "ztc_report", "DIR", "Write conformance.json into DIR")
    for name, metavar, text in _VALUES:
        _value(parser, group, name, metavar, text)
    for name, metavar, text in _LISTS:
        group.addoption(option(name), dest=name, metavar=metavar, action="append", default=None, help=f"{text}; may be repeated")
        parser.addini(name, f"{text}, one a line", type="linelist", default=[])
    for name, text in _FLAGS:
        _flag(parser, group, name, text)
    _flag(parser, group, "ztc_partial", "Accept requirements that were collected but did not run")
    _flag(parser, group, "ztc_casefiles", "Collect every *.ztc.yaml, not only those named on the command line")


def _value(parser: pytest.Parser, group: pytest.OptionGroup, name: str, metavar: str, text: str) -> None:
    group.addoption(option(name), dest=name, metavar=metavar, default=None, help=text)
    parser.addini(name, text, type="string", default="")


def _flag(parser: pytest.Parser, group: pytest.OptionGroup, name: str, text: str) -> None:
    group.addoption(option(name), dest=name, action="store_true", default=None, help=text)
    parser.addini(name, text, type="bool", default=False)


def option(name: str) -> str:
    """Return how an option is written on the command line."""
    return "--" + name.replace("_", "-")


def flag(config: pytest.Config, name: str) -> bool:
    """Return whether a switch is on."""
    return bool(config.getoption(name) or config.getini(name))


def value(config: pytest.Config, name: str) -> str:
    """Return what the user gave, or "" where nobody gave anything."""
    return str(config.getoption(name) or config.getini(name) or "")


def values(config: pytest.Config, name: str) -> Sequence[str]:
    """Return what the user gave for an option that may be repeated; the command line replaces the ini value."""
    return tuple(config.getoption(name) or config.getini(name) or ())


def base(config: pytest.Config, name: str) -> Path:
    """Return what a path is relative to: an option's to where pytest was started, an ini value's to the root directory."""
    return config.invocation_params.dir if config.getoption(name) else config.rootpath


def given(config: pytest.Config) -> bool:
    """Return whether the user said anything of the stack, so that it has to be looked at before pytest starts."""
    names = ("ztc_stack", *(name for name, *_ in (*_VALUES, *_LISTS, *_FLAGS)))
    return any(config.getoption(name) or config.getini(name) for name in names)


def chosen_stack(config: pytest.Config) -> str | None:
    """Return the name of the stack that the user chose, or None where nobody did."""
    return value(config, "ztc_stack") or None


def report_directory(config: pytest.Config) -> Path | None:
    """Return where the report goes, or None where nobody asked for one."""
    named = value(config, "ztc_report")
    return base(config, "ztc_report") / named if named else None
