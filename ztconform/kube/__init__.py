# SPDX-License-Identifier: Apache-2.0
"""The Cluster protocol on Kubernetes: existing clusters, and those that kind makes. Imported only when a stack needs it."""
