# SPDX-License-Identifier: Apache-2.0
"""The embedded lab: a Cluster of Linux network namespaces on this machine.

Starting and naming it as a stack is for `stacks`, what its observations mean for `judge` and `proof`.
"""
