"""How a stage ends: a known error is one line that helps, and never exit status 0."""

import sys
from collections.abc import Callable
from typing import NoReturn


def run(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's main() and exit: 0 when it is done, 1 after one line when it cannot go on.

    DVC deletes a stage's outputs before it runs the stage, those in git too, so a second line says
    how to have them back.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        print(
            f"{name}: {error}\n"
            f"{name}: DVC removed its outputs before it ran; "
            "`git checkout metrics plots && dvc checkout` brings the committed ones back",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)
