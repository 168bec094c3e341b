"""`python -m lib_instantstyle …`: InstantStyle without the WebUI."""

import sys

from .standalone.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
