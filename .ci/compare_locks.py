"""Compare the outputs of two dvc.lock files stage by stage: COMMITTED FRESH [COMMITTED FRESH …].

Data stages must agree to the byte on every machine. A trained model may differ between processor
types (their vector units round differently), so train, evaluate and report may differ.
"""

import sys
from pathlib import Path

from ruamel.yaml import YAML

MAY_DIFFER = {"train", "evaluate", "report"}


def outputs(lock: Path) -> dict[str, dict[str, str]]:
    """Return stage to output path to hash."""
    stages = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        name: {out["path"]: out["md5"] for out in stage["outs"]} for name, stage in stages.items()
    }


def main(arguments: list[str]) -> int:
    """Print a line a stage; return 1 if a data stage differs."""
    failed = False
    for committed, fresh in zip(arguments[::2], arguments[1::2], strict=True):
        old, new = outputs(Path(committed)), outputs(Path(fresh))
        for stage in sorted(old.keys() | new.keys()):
            differing = sorted(
                path
                for path in old.get(stage, {}).keys() | new.get(stage, {}).keys()
                if old.get(stage, {}).get(path) != new.get(stage, {}).get(path)
            )
            if not differing:
                print(f"{stage}: same bytes")
            elif stage in MAY_DIFFER:
                print(f"{stage}: differs, as it may on another processor: {', '.join(differing)}")
            else:
                print(f"{stage}: DIFFERS: {', '.join(differing)}")
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
