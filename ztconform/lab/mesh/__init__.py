# SPDX-License-Identifier: Apache-2.0
"""The lab's mesh: Istio's sidecar semantics by one real Envoy; keeping it in step with the lab's state is for `lab.cluster`."""
