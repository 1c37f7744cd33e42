"""Stage entry point: map exceptions to exit statuses and short error messages."""

import errno
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's main() and exit with 0 on success or 1 on a known error.

    An interrupted stage exits with 130 (SIGINT) or 143 (SIGTERM), following the shell convention.
    It never exits with 0, because DVC would treat the stage as complete. Temporary files are
    removed after SIGTERM too.

    DVC deletes a stage's outputs, including those tracked by git, before it runs the stage.
    Therefore the error message includes a second line with the command that restores them.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted; rerun `dvc repro` to resume", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        disk_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = "; free disk space (`dvc gc --workspace` removes old results) and rerun the stage"
        print(
            f"{name}: {error}{remedy if disk_full else ''}\n"
            f"{name}: DVC removed the outputs of this stage before running it; "
            "run `git checkout metrics plots && dvc checkout` to restore the committed versions",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)
