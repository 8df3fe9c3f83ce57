# SPDX-License-Identifier: Apache-2.0
"""What the user settled for a stack, read from options and ini values and checked, before anything is created.

Whether a stack knows a component, and what it finds on the machine, is left to the stack.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from ztconform.plugin import options, progress, run
from ztconform.settings import PodOptions, Settings

SVID_TTL = (2.0, 86_400.0)  # seconds
_SETTINGS = pytest.StashKey[Settings]()

_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN = rf"{_NAME}(\.{_NAME})*"
_KEY = rf"({_DOMAIN}/)?[A-Za-z0-9]([-._A-Za-z0-9]{{0,61}}[A-Za-z0-9])?"
_LABEL = r"([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

# What makes no sense where ztconform does not make the cluster. From the ini it is a default, and no contradiction.
_OF_A_NEW_CLUSTER = (
    "ztc_kind_image",
    "ztc_kind_config",
    "ztc_load_image",
    "ztc_chart",
    "ztc_chart_version",
    "ztc_chart_repository",
    "ztc_values",
    "ztc_cni_command",
)


def of(config: pytest.Config) -> Settings:
    """Return what the user settled; raises pytest.UsageError that names the option for what cannot be meant."""
    known = config.stash.get(_SETTINGS, None)
    if known is None:
        known = config.stash[_SETTINGS] = _read(config)
    return known


def _read(config: pytest.Config) -> Settings:
    own = run.of(config)
    context, kubeconfig = options.value(config, "ztc_context"), _file(config, "ztc_kubeconfig")
    _refuse_contradictions(config, context)
    return Settings(
        svid_ttl=_seconds(config, "ztc_svid_ttl"),
        spire_server_bin=_program(config, "ztc_spire_server_bin") or "spire-server",
        spire_agent_bin=_program(config, "ztc_spire_agent_bin") or "spire-agent",
        context=context,
        kubeconfig=kubeconfig if context else None,
        keep=options.flag(config, "ztc_keep"),
        kind_image=options.value(config, "ztc_kind_image"),
        kind_config=_file(config, "ztc_kind_config"),
        kind_bin=_program(config, "ztc_kind_bin") or "kind",
        helm_bin=_program(config, "ztc_helm_bin") or "helm",
        load_images=tuple(_path(config, "ztc_load_image", text) for text in options.values(config, "ztc_load_image")),
        charts={name: _path(config, "ztc_chart", text) for name, text in _pairs(config, "ztc_chart", "COMPONENT=DIR").items()},
        chart_versions=_versions(config),
        chart_repositories=_repositories(config),
        values=_values(config),
        cni_command=_command(config, "ztc_cni_command"),
        nodes=_nodes(config),
        allow_disruptive=options.flag(config, "ztc_allow_disruptive"),
        privileged=options.flag(config, "ztc_privileged"),
        outsider=options.value(config, "ztc_outsider"),
        pods=_pods(config),
        run=own.id,
        worker=own.worker,
        folder=own.folder,
        report=options.report_directory(config),
        notify=progress.saying(config),
    )


def _pods(config: pytest.Config) -> PodOptions:
    default = PodOptions()
    prefix = options.value(config, "ztc_label_prefix")
    if prefix and not re.fullmatch(_DOMAIN, prefix):
        raise _wrong("ztc_label_prefix", prefix, "give a domain in small letters, such as example.com")
    secret = options.value(config, "ztc_pull_secret")
    if secret and not re.fullmatch(rf"{_NAME}/{_DOMAIN}", secret):
        raise _wrong("ztc_pull_secret", secret, "give the secret's namespace and name, as in registry/pull")
    return PodOptions(
        agent_image=options.value(config, "ztc_agent_image"),
        image_registry=options.value(config, "ztc_image_registry").rstrip("/"),
        pull_secret=secret,
        namespace_labels=_labels(config, "ztc_namespace_label"),
        namespace_annotations=_labels(config, "ztc_namespace_annotation", values=r"(?s).*"),
        node_selector=_labels(config, "ztc_node_selector"),
        tolerations=tuple(_toleration(text) for text in options.values(config, "ztc_toleration")),
        label_prefix=prefix or default.label_prefix,
    )


def _refuse_contradictions(config: pytest.Config, context: str) -> None:
    if context:
        for name in _OF_A_NEW_CLUSTER:
            if config.getoption(name):
                raise pytest.UsageError(f"{options.option(name)} is for a cluster that ztconform makes; --ztc-context names one")
    elif config.getoption("ztc_kubeconfig"):
        raise pytest.UsageError("--ztc-kubeconfig says where a context is found: name the context, with --ztc-context NAME")


def _seconds(config: pytest.Config, name: str) -> float | None:
    text = options.value(config, name)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    least, most = SVID_TTL
    if not least <= seconds <= most:
        raise _wrong(name, text, f"give a number of seconds from {least:.0f} to {most:.0f}")
    return seconds


def _path(config: pytest.Config, name: str, text: str) -> Path:
    path = options.base(config, name) / Path(text).expanduser()
    if not path.exists():
        raise _wrong(name, text, "no such file or folder")
    return path


def _file(config: pytest.Config, name: str) -> Path | None:
    text = options.value(config, name)
    return _regular(config, name, text) if text else None


def _regular(config: pytest.Config, name: str, text: str) -> Path:
    path = _path(config, name, text)
    if path.is_dir():
        raise _wrong(name, text, "is a folder; name a file")
    return path


def _program(config: pytest.Config, name: str) -> str:
    """Return a bare name as it is, for the PATH, and anything else as a path."""
    text = options.value(config, name)
    return text if Path(text).name == text else str(_regular(config, name, text))


def _command(config: pytest.Config, name: str) -> str:
    text = options.value(config, name)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _wrong(name, text, f"cannot be split into words: {str(error).lower()}") from None
    if text and not words:
        raise _wrong(name, text, "names no command")
    return text


def _nodes(config: pytest.Config) -> tuple[str, ...]:
    text = options.value(config, "ztc_nodes")
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if not re.fullmatch(_DOMAIN, name):
            raise _wrong("ztc_nodes", text, f"{name!r} is no name of a node; give names with commas between them")
    if len(set(names)) < len(names):
        raise _wrong("ztc_nodes", text, "a node is named twice")
    return names


def _pairs(config: pytest.Config, name: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in options.values(config, name):
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise _wrong(name, text, f"give {form}")
        if key in found:
            raise _wrong(name, text, f"{key} is given twice")
        found[key] = value
    return found


def _values(config: pytest.Config) -> Mapping[str, Path]:
    pairs = _pairs(config, "ztc_values", "COMPONENT=FILE")
    return {component: _regular(config, "ztc_values", text) for component, text in pairs.items()}


def _versions(config: pytest.Config) -> Mapping[str, str]:
    pairs = _pairs(config, "ztc_chart_version", "COMPONENT=VERSION")
    for component, version in pairs.items():
        # As helm would read a range (">=1.2", "1.x") as one, and take whatever is newest.
        if not re.fullmatch(r"v?\d+\.\d+\.\d+([-+][-+.0-9A-Za-z]+)?", version):
            raise _wrong("ztc_chart_version", f"{component}={version}", "give an exact version, such as 1.2.3")
    return pairs


def _repositories(config: pytest.Config) -> Mapping[str, str]:
    pairs = _pairs(config, "ztc_chart_repository", "COMPONENT=URL")
    for component, url in pairs.items():
        if not re.fullmatch(r"(https?|oci)://[^\s/]+(/\S*)?", url):
            raise _wrong("ztc_chart_repository", f"{component}={url}", "give a URL that begins with https:// or oci://")
    return pairs


def _labels(config: pytest.Config, name: str, *, values: str = _LABEL) -> Mapping[str, str]:
    pairs = _pairs(config, name, "KEY=VALUE")
    for key, value in pairs.items():
        if not re.fullmatch(_KEY, key):
            raise _wrong(name, f"{key}={value}", f"Kubernetes takes no key {key!r}")
        if not re.fullmatch(values, value):
            raise _wrong(name, f"{key}={value}", f"Kubernetes takes no label value {value!r}")
    return pairs


def _toleration(text: str) -> Mapping[str, str]:
    taint, colon, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    if not (re.fullmatch(_KEY, key) and re.fullmatch(_LABEL, value)):
        raise _wrong("ztc_toleration", text, "give KEY[=VALUE][:EFFECT]")
    if colon and effect not in _EFFECTS:
        raise _wrong("ztc_toleration", text, f"the effect is one of {', '.join(_EFFECTS)}")
    kind = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **kind, **({"effect": effect} if effect else {})}


def _wrong(name: str, text: str, what: str) -> pytest.UsageError:
    return pytest.UsageError(f"{options.option(name)} {text}: {what}")
