# SPDX-License-Identifier: Apache-2.0
"""What any mesh has, the lab's and a cluster's: certificates, lines of a proxy's log, and the denials they tell of."""
