"""Check params.yaml, so that a wrong value stops `dvc repro` before any output is deleted.

DVC deletes the outputs of a stage before it runs the stage. All stages depend on this one, so a
typing error in a parameter of `train` costs no trained model.

    python -m stages.check

Writes data/check.txt, whose content never changes: no other stage reruns because this one did.
"""

from pathlib import Path

from anklealign.config import params, stage
from anklealign.io import files
from anklealign.models import weights

OUT = Path("data/check.txt")


def main() -> None:
    """Raise an error with one line for each invalid parameter and each missing file."""
    raw = params.read()
    if errors := params.check(raw) or params.input_errors(raw) or weights.errors(raw):
        raise ValueError("\n".join(errors))
    files.write_text(OUT, "params.yaml is valid.\n")


if __name__ == "__main__":
    stage.run("check", main)
