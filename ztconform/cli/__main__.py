# SPDX-License-Identifier: Apache-2.0
"""`python -m ztconform.cli`, where the console script is not on the PATH."""

import sys

from ztconform.cli import main

sys.exit(main())
