"""`python -m inbound`: the command line."""

import sys

from inbound.cli import main

sys.exit(main())
