# SPDX-License-Identifier: Apache-2.0
"""An AuthorizationPolicy is taken and refused as by Istio's webhook; every refusal is one line that names the field."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztconform.errors import Rejected
from ztconform.lab.mesh.authorizationpolicy import Condition, Rule, parse_authorization_policy
from ztconform.lab.selectors import EVERYTHING, equal_to
from ztconform.model import Ref

PREFIX = "AuthorizationPolicy shop/p: "


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": spec,
    }


def annotated(value: Any, **spec: Any) -> dict[str, Any]:
    whole = manifest(**spec)
    whole["metadata"]["annotations"] = {"istio.io/dry-run": value}
    return whole


def refusal(value: object) -> str:
    with pytest.raises(Rejected) as caught:
        parse_authorization_policy(value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def rule_refusal(**rule: Any) -> str:
    text = refusal(manifest(rules=[{}, rule]))
    assert text.startswith(f"{PREFIX}spec.rules[1].")
    return text.removeprefix(f"{PREFIX}spec.rules[1].")


def source_refusal(**source: Any) -> str:
    return rule_refusal(**{"from": [{"source": source}]}).removeprefix("from[0].source")


def operation_refusal(**operation: Any) -> str:
    return rule_refusal(to=[{"operation": operation}]).removeprefix("to[0].operation")


@pytest.mark.parametrize("spec", [{}, {"rules": []}, {"rules": None}, {"action": "ALLOW"}, {"selector": {}, "action": None}])
def test_an_allow_policy_without_rules_is_taken(spec: dict[str, Any]) -> None:
    policy = parse_authorization_policy(manifest(**spec))
    assert (Ref("shop", "p"), EVERYTHING, "ALLOW", (), False) == (
        policy.ref,
        policy.selector,
        policy.action,
        policy.rules,
        policy.dry_run,
    )


def test_a_policy_without_a_specification_is_an_allow_policy_without_rules() -> None:
    whole = manifest()
    del whole["spec"]
    assert parse_authorization_policy(manifest()) == parse_authorization_policy(whole)


def test_both_versions_say_the_same() -> None:
    whole = manifest(rules=[{}])
    beta = {**whole, "apiVersion": "security.istio.io/v1beta1"}
    assert parse_authorization_policy(whole) == parse_authorization_policy(beta)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, Rule()),
        ({"from": None, "to": None, "when": None}, Rule()),
        ({"when": []}, Rule()),
        (
            {"from": [{"source": {"principals": ["*"], "notNamespaces": ["x"]}}, {"source": {"serviceAccounts": ["a", "b/c"]}}]},
            Rule(
                sources=(
                    (Condition("source.principal", ("*",)), Condition("source.namespace", (), ("x",))),
                    (Condition("source.serviceAccount", ("a", "b/c")),),
                )
            ),
        ),
        (
            {"from": [{"source": {"ipBlocks": ["10.1.2.3", "10.1.2.3/8"], "notIpBlocks": ["FD00::1/64"]}}]},
            Rule(sources=((Condition("source.ip", ("10.1.2.3/32", "10.0.0.0/8"), ("fd00::/64",)),),)),
        ),
        (
            {"from": [{"source": {"trustDomains": ["a.b", "*c", "d*", "*"], "principals": []}}]},
            Rule(sources=((Condition("source.trustDomain", ("a.b", "*c", "d*", "*")),),)),
        ),
        (
            {"to": [{"operation": {"ports": ["0080"], "notPorts": ["0"], "methods": ["GET"]}}]},
            Rule(operations=((Condition("destination.port", ("80",), ("0",)), Condition("method", ("GET",))),)),
        ),
        (
            {"to": [{"operation": {"hosts": ["A.b"], "notPaths": ["/a*", "/x/{*}/y", "/{**}", "/a/{**}/b/", "no-slash"]}}]},
            Rule(
                operations=(
                    (Condition("host", ("A.b",)), Condition("path", (), ("/a*", "/x/{*}/y", "/{**}", "/a/{**}/b/", "no-slash"))),
                )
            ),
        ),
        (
            {"when": [{"key": "request.headers[X-Foo]", "values": ["a"], "notValues": ["b"]}]},
            Rule(when=(Condition("request.headers", ("a",), ("b",), "x-foo"),)),
        ),
        (
            {"when": [{"key": "destination.port", "values": ["80"]}, {"key": "connection.sni", "notValues": ["x"]}]},
            Rule(when=(Condition("destination.port", ("80",)), Condition("connection.sni", (), ("x",)))),
        ),
    ],
)
def test_a_rule_is_read(rule: dict[str, Any], expected: Rule) -> None:
    assert (expected,) == parse_authorization_policy(manifest(rules=[rule])).rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [(text, text[0] in "1tT") for text in ("1", "t", "T", "true", "True", "TRUE", "0", "f", "F", "false", "False", "FALSE")],
)
def test_a_dry_run_is_a_boolean_as_go_reads_it(text: str, expected: bool) -> None:
    assert expected is parse_authorization_policy(annotated(text)).dry_run


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (annotated("yes"), 'metadata.annotations[istio.io/dry-run]: must be "true" or "false", not \'yes\''),
        (annotated(""), "metadata.annotations[istio.io/dry-run]: must be"),
        (annotated(True), "metadata.annotations[istio.io/dry-run]: must be a string, not true"),
        (annotated("false", action="AUDIT", rules=[{}]), "metadata.annotations[istio.io/dry-run]: must not be there"),
        ({**manifest(), "status": {}}, "status: is written by Istio"),
        ({**manifest(), "apiVersion": "security.istio.io/v1alpha1"}, "apiVersion: must be security.istio.io/v1,"),
        ({**manifest(), "kind": "PeerAuthentication"}, "kind: must be AuthorizationPolicy"),
    ],
)
def test_what_surrounds_a_specification_is_read_as_strictly(value: dict[str, Any], message: str) -> None:
    kind = value["kind"]
    assert refusal(value).startswith(f"{kind} shop/p: {message}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"action": "allow"}, "spec.action: must be ALLOW or DENY or AUDIT, not 'allow'"),
        ({"action": "CUSTOM", "rules": [{}]}, "spec.action: CUSTOM is not supported: an external authorizer would decide"),
        ({"provider": {"name": "x"}}, "spec.provider: is not supported: an external authorizer would decide"),
        ({"targetRef": {"kind": "Service", "name": "x"}}, "spec.targetRef: is not supported"),
        ({"targetRefs": []}, "spec.targetRefs: is not supported"),
        ({"action": "DENY"}, "spec.rules: must not be empty in a DENY policy"),
        ({"action": "DENY", "rules": []}, "spec.rules: must not be empty in a DENY policy"),
        ({"rules": {}}, "spec.rules: must be a list, not a mapping"),
        ({"rules": [None]}, "spec.rules[0]: must not be null"),
        ({"rules": [{}] * 513}, "spec.rules: must not hold more than 512 rules"),
        ({"rule": [{}]}, "spec.rule: no such field"),
        ({"selector": {"matchLabels": {"app": "a*"}}}, "spec.selector.matchLabels[app]: 'a*' is no label value"),
        ({"selector": {"matchExpressions": []}}, "spec.selector.matchExpressions: no such field"),
    ],
)
def test_what_istio_refuses_or_the_lab_cannot_is_refused_by_name(spec: dict[str, Any], message: str) -> None:
    assert refusal(manifest(**spec)).startswith(PREFIX + message)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"from": []}, "from: must not be empty"),
        ({"to": []}, "to: must not be empty"),
        ({"from": [{}]}, "from[0].source: is required"),
        ({"from": [{"source": None}]}, "from[0].source: is required"),
        ({"from": [{"sources": {}}]}, "from[0].sources: no such field"),
        ({"from": [{"source": {"ipBlocks": ["10.0.0.1"]}}] * 513}, "from: must not hold more than 512 sources"),
        ({"to": [{}]}, "to[0].operation: is required"),
        ({"to": [None]}, "to[0]: must not be null"),
        ({"when": [{}]}, "when[0].key: is required"),
        ({"when": [{"key": "source.ip"}]}, "when[0]: must have values or notValues"),
        ({"when": [{"key": "source.ip", "values": []}]}, "when[0]: must have values or notValues"),
        ({"when": [{"key": "", "values": ["x"]}]}, "when[0].key: '' is no attribute"),
        ({"when": [{"key": "source.ip", "values": ["x"]}]}, "when[0].values[0]: 'x' is no address or CIDR"),
        ({"when": [{"key": "destination.port", "notValues": ["http"]}]}, "when[0].notValues[0]: must be a number up to 65535"),
        ({"when": [{"key": "source.serviceAccount", "values": ["a*"]}]}, "when[0].values[0]: 'a*' must not have a wildcard"),
        ({"when": [{"key": "remote.ip", "values": ["1.2.3.4"]}]}, "when[0].key: 'remote.ip' is not supported"),
        (
            {"when": [{"key": "request.auth.principal", "values": ["x"]}]},
            "when[0].key: 'request.auth.principal' is not supported",
        ),
        ({"when": [{"key": "request.auth.claims[iss]", "values": ["x"]}]}, "when[0].key: 'request.auth.claims[iss]' is not"),
        (
            {"when": [{"key": "experimental.envoy.filters.a[b]", "values": ["x"]}]},
            "when[0].key: 'experimental.envoy.filters.a[b]'",
        ),
        ({"when": [{"key": "request.headers", "values": ["x"]}]}, "when[0].key: 'request.headers' is no attribute"),
        ({"when": [{"key": "request.headers[]", "values": ["x"]}]}, "when[0].key: 'request.headers[]' is no attribute"),
        ({"when": [{"key": "request.headers[a b]", "values": ["x"]}]}, "when[0].key: 'a b' is no name of a header"),
        ({"when": [{"key": "request.headersX[a]", "values": ["x"]}]}, "when[0].key: 'request.headersX[a]' is no attribute"),
        (
            {"when": [{"key": "destination.labels[app]", "values": ["x"]}]},
            "when[0].key: 'destination.labels[app]' is no attribute",
        ),
        ({"when": [{"key": "source.ip", "value": ["x"]}]}, "when[0].value: no such field"),
    ],
)
def test_a_rule_that_istio_refuses_is_refused_by_name(rule: dict[str, Any], message: str) -> None:
    assert rule_refusal(**rule).startswith(message)


@pytest.mark.parametrize("name", ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"])
def test_a_source_that_the_lab_cannot_tell_is_refused_by_name(name: str) -> None:
    assert source_refusal(**{name: ["x"], "namespaces": ["shop"]}).startswith(f".{name}: is not supported")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, ": must not be empty"),
        ({"principals": [], "notNamespaces": []}, ": must not be empty"),
        ({"principals": "x"}, ".principals: must be a list, not 'x'"),
        ({"principals": [""]}, ".principals[0]: must not be empty"),
        ({"notPrincipals": ["a", ""]}, ".notPrincipals[1]: must not be empty"),
        ({"namespaces": [1]}, ".namespaces[0]: must be a string, not 1"),
        ({"ipBlocks": ["10.0.0.0/33"]}, ".ipBlocks[0]: '10.0.0.0/33' is no address or CIDR"),
        ({"ipBlocks": ["010.0.0.1"]}, ".ipBlocks[0]: '010.0.0.1' is no address or CIDR"),
        ({"ipBlocks": ["10.0.0.0/255.0.0.0"]}, ".ipBlocks[0]: "),
        ({"notIpBlocks": ["fe80::1%eth0"]}, ".notIpBlocks[0]: "),
        ({"notIpBlocks": ["::ffff:10.0.0.1"]}, ".notIpBlocks[0]: '::ffff:10.0.0.1' must not be an IPv4-mapped"),
        ({"serviceAccounts": ["a/b/c"]}, ".serviceAccounts[0]: 'a/b/c' must be a service account's NAME or NAMESPACE/NAME"),
        ({"serviceAccounts": ["/c"]}, ".serviceAccounts[0]: "),
        ({"notServiceAccounts": ["ns/"]}, ".notServiceAccounts[0]: "),
        ({"serviceAccounts": ["ns/*"]}, ".serviceAccounts[0]: 'ns/*' must not have a wildcard"),
        ({"serviceAccounts": ["a" * 321]}, ".serviceAccounts[0]: must not have more than 320 characters"),
        ({"serviceAccounts": ["a"] * 17}, ".serviceAccounts: must not hold more than 16 accounts"),
        ({"serviceAccounts": ["a"], "namespaces": ["b"]}, ".serviceAccounts: must not stand beside namespaces"),
        ({"notServiceAccounts": ["a"], "principals": ["b"]}, ".notServiceAccounts: must not stand beside principals"),
        ({"trustDomains": ["a/b"]}, ".trustDomains[0]: 'a/b' must be a trust domain alone"),
        ({"trustDomains": ["a*b"]}, ".trustDomains[0]: 'a*b' must not have more than one '*', and that at an end"),
        ({"notTrustDomains": ["*a*"]}, ".notTrustDomains[0]: '*a*' must not have"),
        ({"principal": ["a"]}, ".principal: no such field"),
    ],
)
def test_a_source_that_istio_refuses_is_refused_by_name(source: dict[str, Any], message: str) -> None:
    assert source_refusal(**source).startswith(message)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({}, ": must not be empty"),
        ({"methods": []}, ": must not be empty"),
        ({"methods": [""]}, ".methods[0]: must not be empty"),
        ({"ports": [80]}, ".ports[0]: must be a string, not 80"),
        ({"ports": ["65536"]}, ".ports[0]: must be a number up to 65535 in quotes, not '65536'"),
        ({"ports": ["+80"]}, ".ports[0]: "),
        ({"notPorts": ["80-90"]}, ".notPorts[0]: "),
        ({"paths": ["/a/{id}"]}, ".paths[0]: '/a/{id}' must not have braces other than"),
        ({"paths": ["/a/{*}}"]}, ".paths[0]: '/a/{*}}' has the segment '{*}}'"),
        ({"paths": ["/a/x{*}"]}, ".paths[0]: '/a/x{*}' has the segment 'x{*}'"),
        ({"paths": ["/{*}/a*"]}, ".paths[0]: '/{*}/a*' has the segment 'a*'"),
        ({"paths": ["/{**}/{*}"]}, ".paths[0]: '/{**}/{*}' must not have {*} or {**} behind {**}"),
        ({"paths": ["/{**}/a/{**}"]}, ".paths[0]: "),
        ({"paths": ["/a//{*}"]}, ".paths[0]: '/a//{*}' has the segment ''"),
        ({"notPaths": ["/{*}//"]}, ".notPaths[0]: '/{*}//' has the segment ''"),
        ({"notPaths": ["a/{*}"]}, ".notPaths[0]: 'a/{*}' must begin with '/'"),
        ({"paths": ["/{*}/" + "a" * 254]}, ".paths[0]: must not have more than 256 characters"),
        ({"path": ["/"]}, ".path: no such field"),
    ],
)
def test_an_operation_that_istio_refuses_is_refused_by_name(operation: dict[str, Any], message: str) -> None:
    assert operation_refusal(**operation).startswith(message)


def test_a_selector_selects_by_labels() -> None:
    selector = {"matchLabels": {"app": "a", "version": "v1"}}
    assert equal_to({"app": "a", "version": "v1"}) == parse_authorization_policy(manifest(selector=selector)).selector


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(("*", "/{*}", "source.ip", "10.0.0.1")),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(("from", "to", "when", "source", "operation", "key", "values", "paths", "ipBlocks", "x"))
            | st.integers(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={name: ANYTHING for name in ("selector", "action", "rules", "targetRef")}))
def test_whatever_stands_in_a_specification_is_taken_or_refused_in_one_line(spec: dict[str, Any]) -> None:
    try:
        parse_authorization_policy(manifest(**spec))
    except Rejected as refused:
        assert str(refused).isprintable()
        assert refused.where.startswith("AuthorizationPolicy shop/p")
