"""Run the `anklealign` command: python -m anklealign."""

import sys

from anklealign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
