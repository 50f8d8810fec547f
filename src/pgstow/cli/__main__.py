"""``python -m pgstow.cli``: the command, for whoever starts it by the interpreter."""

from __future__ import annotations

import sys

from pgstow.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
