# SPDX-License-Identifier: Apache-2.0
"""A real SPIRE beside the lab: its server and agent issue the identities of meshed pods; what pods do with them is for `mesh`."""
