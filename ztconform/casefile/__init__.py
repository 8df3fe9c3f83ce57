# SPDX-License-Identifier: Apache-2.0
"""What a *.ztc.yaml file demands: load() turns it into a Case, or into one UsageError with a line for all that is wrong.

Proving the case is for `proof`, putting addresses into its manifests for `placeholders`. Importing this package costs what
PyYAML and jsonschema cost, so the plugin does it only when a case file is named.
"""

from ztconform.casefile.parse import CaseFile, load
from ztconform.casefile.structure import schema

__all__ = ["CaseFile", "load", "schema"]
