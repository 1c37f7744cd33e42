"""Check params.yaml, dvc.yaml and the selected network without writing anything.

anklealign check
"""

import sys
from pathlib import Path

from anklealign.cli import sync_deps
from anklealign.config import params


def print_errors(*, preflight: bool = False) -> int:
    """Print the errors of params.yaml and dvc.yaml; return the exit status, 1 for any error.

    Args:
        preflight: Also check the disk space that a run needs.
    """
    try:
        raw = params.read()
        errors = params.check(raw) or params.input_errors(raw)
        errors += [
            f"{file}: the dependencies are stale; run `anklealign sync-deps`"
            for file in sync_deps.stale(Path())
        ]
        if not errors:
            from anklealign.cli import preflight as run_checks  # noqa: PLC0415 - PyTorch takes seconds

            errors = run_checks.errors(raw) if preflight else run_checks.train_errors(raw)
    except (ValueError, OSError) as error:
        errors = [str(error)]
    if errors:
        print("\n".join(errors), file=sys.stderr)
        return 1
    print(f"params.yaml is valid: dataset {raw['dataset']}, model {raw['model']}")
    return 0
