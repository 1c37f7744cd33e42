"""How a stage ends: a known error is one line that helps, and never exit status 0."""

import errno
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's main() and exit: 0 when it is done, 1 after one line when it cannot go on.

    Interrupted it exits with 130 or 143, as a shell says it, and never with 0, by which DVC would
    take it for done; a SIGTERM too lets temporary files be removed on the way out.

    DVC deletes a stage's outputs before it runs the stage, those in git too, so a second line says
    how to have them back.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted; `dvc repro` takes it up again", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = "; free some space (`dvc gc --workspace` removes old results), then run it again"
        print(
            f"{name}: {error}{remedy if full else ''}\n"
            f"{name}: DVC removed its outputs before it ran; "
            "`git checkout metrics plots && dvc checkout` brings the committed ones back",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)
