"""Stage entry point: map exceptions to exit statuses and short error messages."""

import errno
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from typing import NoReturn

from anklealign.config import environment

WIDTH = 80  # columns of the terminal


def print_wrapped(text: str) -> None:
    """Print a paragraph in lines of at most 80 columns, the second and later ones indented."""
    print(
        textwrap.fill(
            text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    )


def run(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's main() and exit with 0 on success or 1 on a known error.

    An interrupted stage exits with 130 (SIGINT) or 143 (SIGTERM), following the shell convention.
    It never exits with 0, because DVC would treat the stage as complete. Temporary files are
    removed after SIGTERM too.

    DVC deletes a stage's outputs, including those tracked by git, before it runs the stage.
    Therefore the error message includes a second line with the command that restores them. The
    check stage is the exception: it has no results.
    """
    environment.ensure_utf8()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.environ.get("RANK", "0") == "0":  # torchrun starts one process per rank
        pins = environment.read_pins()
        installed = environment.installed_versions(pins)
        for line in environment.version_differences(pins, installed):
            print(f"{name}: {line}; results may differ", file=sys.stderr)
    try:
        main()
    except KeyboardInterrupt:
        print(f"{name}: interrupted; rerun `dvc repro` to resume", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        disk_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = "; free disk space (`dvc gc --workspace` removes old results) and rerun the stage"
        print(f"{name}: {error}{remedy if disk_full else ''}", file=sys.stderr)
        if name != "check":
            print(
                f"{name}: DVC removed the outputs of this stage before running it; run "
                "`anklealign restore` to restore the committed results",
                file=sys.stderr,
            )
        sys.exit(1)
    sys.exit(0)
