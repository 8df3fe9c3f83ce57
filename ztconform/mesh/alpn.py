# SPDX-License-Identifier: Apache-2.0
"""What a sidecar of Istio offers to another in TLS's negotiation of protocols: by "istio..." a server knows it as one."""

# pilot/pkg/networking/util
CLIENT = ("istio-http/1.1", "istio", "http/1.1")
CLIENT_H2 = ("istio-h2", "istio", "h2")
