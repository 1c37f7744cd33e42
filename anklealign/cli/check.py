"""Check params.yaml and dvc.yaml without writing anything.

anklealign check
"""

import sys
from pathlib import Path

from anklealign.cli import sync_deps
from anklealign.config import params


def print_errors() -> int:
    """Print the errors of params.yaml and dvc.yaml; return the exit status, 1 for any error."""
    try:
        raw = params.read()
        errors = params.check(raw) or params.missing_files(raw)
        errors += [
            f"{pipeline}: the code dependencies are stale; run `anklealign sync-deps`"
            for pipeline in sync_deps.stale(Path())
        ]
    except ValueError as error:
        errors = [str(error)]
    if errors:
        print("\n".join(errors), file=sys.stderr)
        return 1
    print(f"params.yaml is valid: dataset {raw['dataset']}, model {raw['model']}")
    return 0
