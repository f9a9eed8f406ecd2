"""`python -m uamqp_cffi` is the command `uamqp-cffi`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
