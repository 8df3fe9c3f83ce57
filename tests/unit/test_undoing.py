# SPDX-License-Identifier: Apache-2.0
"""Values that switch off what an option of the stack switched on are refused before anything is made; others are the user's."""

from pathlib import Path

import pytest

from ztconform import stacks
from ztconform.errors import UsageError
from ztconform.settings import Settings
from ztconform.stacks.composed import ComposedStack


def check(name: str, values: str, folder: Path) -> None:
    file = folder / "values.yaml"
    file.write_text(values)
    stack = stacks.find(name)
    assert isinstance(stack, ComposedStack)
    stack.check(Settings(values={"cilium": file}))


@pytest.mark.parametrize(
    ("name", "values", "path"),
    [
        ("cilium:kpr", "kubeProxyReplacement: false", "kubeProxyReplacement"),
        ("cilium:dual", "ipv6: {enabled: false}", "ipv6.enabled"),
        ("cilium:dual", "ipv6: null", "ipv6.enabled"),
        ("cilium+istio:wireguard", "encryption: {enabled: false}", "encryption.enabled"),
    ],
)
def test_what_undoes_an_option_is_named(name: str, values: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"--ztc-values cilium=.*values.yaml: {path} is on in {name.replace('+', '.')}"):
        check(name, values, tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cilium", "kubeProxyReplacement: false"),
        ("cilium:kpr", "kubeProxyReplacement: true"),
        ("cilium:kpr", "k8sServiceHost: api.example"),
        ("cilium:dual", "kubeProxyReplacement: false"),
        ("cilium:dual", "hubble: {relay: {enabled: false}}"),
        ("cilium:dual", "- no mapping"),
        ("cilium:dual", "{"),
    ],
)
def test_other_values_are_the_users(name: str, values: str, tmp_path: Path) -> None:
    check(name, values, tmp_path)
