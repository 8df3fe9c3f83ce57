# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the embedded lab; what they print is for people, and no test depends on it."""
