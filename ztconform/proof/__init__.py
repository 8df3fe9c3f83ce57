# SPDX-License-Identifier: Apache-2.0
"""How a case is proved on a cluster: one door, `prove_case`, for scenarios, case files and mutants alike."""

from ztconform.proof.canary import CanaryLayer, complaint, prove_canary, untested
from ztconform.proof.protocol import prove_case

__all__ = ["CanaryLayer", "complaint", "prove_canary", "prove_case", "untested"]
