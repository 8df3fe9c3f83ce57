# SPDX-License-Identifier: Apache-2.0
"""Whom a CNI's flow log names for a drop is named as the case names it; a default deny is of the policies that select the pod."""

from ztconform.kube.causes import causes
from ztconform.kube.names import private
from ztconform.kube.pods import KubePod
from ztconform.kube.profile import Drop
from ztconform.model import Ref, Workload

NAMES = private({"shop": {}}, "1a2b3c-0")
PAYMENT = Ref("shop", "payment-0")
POD = KubePod(
    ref=PAYMENT,
    real=NAMES.ref(PAYMENT),
    workload=Workload(ref=Ref("shop", "payment")),
    node=0,
    addresses=("10.244.0.9",),
    serves=True,
)


def selecting(pod: Ref, direction: str) -> tuple[str, ...]:
    assert (NAMES.ref(PAYMENT), "ingress") == (pod, direction)
    return ("shop/default-deny",)


def drop(*policies: str, address: str = "10.244.0.9") -> Drop:
    return Drop(nonce="n", direction="ingress", address=address, policies=policies)


def test_an_explicit_denial_names_its_policy_as_the_case_does() -> None:
    (cause,) = causes([drop("shop-1a2b3c-0/no-legacy", "cluster-wide-1a2b3c-0")], [POD], selecting, NAMES.policy, source="hubble")
    assert (("shop/no-legacy", "cluster-wide"), True, PAYMENT) == (cause.policies, cause.explicit, cause.endpoint)


def test_an_implicit_denial_is_of_all_that_select_the_pod() -> None:
    (cause,) = causes([drop()], [POD], selecting, NAMES.policy, source="hubble")
    assert (("shop/default-deny",), False, PAYMENT) == (cause.policies, cause.explicit, cause.endpoint)


def test_a_drop_at_an_address_that_is_none_of_ours_names_nobody() -> None:
    (cause,) = causes([drop(address="10.244.0.10")], [POD], selecting, NAMES.policy, source="hubble")
    assert ((), False, None) == (cause.policies, cause.explicit, cause.endpoint)
