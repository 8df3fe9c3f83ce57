# SPDX-License-Identifier: Apache-2.0
"""What the API server says of a case at this moment: its Services and who stands behind them, who is ready, whose policies apply.

It is asked anew each time but for what never changes; what that means for a round is left to the judge.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException

from ztconform.errors import ClusterError, UsageError
from ztconform.kube.client import first_line, is_missing, translated
from ztconform.kube.labels import Labels
from ztconform.kube.names import Names
from ztconform.kube.pods import condition, is_ending
from ztconform.kube.policies import Policies
from ztconform.kube.resources import Resources
from ztconform.kube.rounds import Seen
from ztconform.kube.settling import behind
from ztconform.model import Ref


class View:
    """Look at one case's namespaces."""

    def __init__(self, resources: Resources, names: Names, labels: Labels, policies: Policies) -> None:
        self._resources = resources
        self._names = names
        self._labels = labels
        self._policies = policies
        self._services: dict[Ref, Mapping[str, Any]] = {}

    def service(self, ref: Ref) -> Mapping[str, Any]:
        """Return a Service, whose addresses are its own for life; raises UsageError if there is none."""
        if ref not in self._services:
            real = self._names.ref(ref)
            with translated(f"reading Service {ref}"):
                try:
                    self._services[ref] = self._resources.read(f"/api/v1/namespaces/{real.namespace}/services/{real.name}")
                except ApiException as error:
                    if is_missing(error):
                        raise UsageError(f"there is no Service {ref}") from None
                    raise
        return self._services[ref]

    def behind(self, service: Ref) -> frozenset[Ref]:
        """Return the pods that are ready behind a Service; raises ClusterError."""
        return self._endpoints(service.namespace, labelSelector=f"kubernetes.io/service-name={service.name}")

    def look(self, namespaces: Iterable[str]) -> Seen:
        """Return what is to be seen in these namespaces; where the API server cannot be asked, why nothing is to be believed."""
        namespaces = sorted(namespaces)
        try:
            ready = {
                Ref(namespace, pod["metadata"]["name"])
                for namespace in namespaces
                for pod in self._pods(namespace)
                if condition(pod, "Ready") and not is_ending(pod)
            }
            return Seen(
                ready=frozenset(ready),
                endpoints=frozenset().union(*map(self._endpoints, namespaces)),
                foreign=self._policies.foreign([self._names.to_real(n) for n in namespaces]),
            )
        except (ApiException, urllib3.exceptions.HTTPError, ClusterError) as error:
            doubt = f"the API server could not be asked in this round ({first_line(str(error))[:120]})"
            return Seen(ready=frozenset(), endpoints=frozenset(), foreign=frozenset(), doubt=doubt)

    def _pods(self, namespace: str) -> list[dict[str, Any]]:
        path = f"/api/v1/namespaces/{self._names.to_real(namespace)}/pods"
        return list(self._resources.get(path, labelSelector=self._labels.selector()).get("items") or [])

    def _endpoints(self, namespace: str, **query: str) -> frozenset[Ref]:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._names.to_real(namespace)}/endpointslices"
        return frozenset(Ref(namespace, pod) for item in self._resources.items(path, **query) for _, pod in behind(item))
