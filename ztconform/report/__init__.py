# SPDX-License-Identifier: Apache-2.0
"""What a run is told as: one JSON document, a matrix on the terminal, a text for every red row, and an exit code.

Everything here reads rows in their JSON form, in which they cross from a worker to the process that reports.
"""
