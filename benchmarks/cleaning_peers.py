"""Run cleanvision or imagededup on a folder of photos.

benchmarks/cleaning.py runs this in a separate environment:

    python benchmarks/cleaning_peers.py cleanvision|imagededup FOLDER OUT.json
"""

import json
import sys
from pathlib import Path


def cleanvision(folder: Path) -> tuple[dict[str, set[str]], set[str]]:
    """Return the pairs of its exact and near duplicates, and the photos with any other issue."""
    from cleanvision import Imagelab  # noqa: PLC0415 - each peer is imported only when used

    lab = Imagelab(data_path=str(folder))
    lab.find_issues()
    alike: dict[str, set[str]] = {}
    for kind in ("exact_duplicates", "near_duplicates"):
        for group in lab.info[kind]["sets"]:
            for path in group:
                alike.setdefault(path, set()).update(other for other in group if other != path)
    checks = ("dark", "light", "low_information", "blurry", "odd_size", "odd_aspect_ratio")
    issues = lab.issues[[f"is_{check}_issue" for check in checks]].any(axis=1)
    return alike, set(issues.index[issues])


def imagededup(folder: Path) -> tuple[dict[str, set[str]], None]:
    """Return the pairs within pHash's default distance of 10 bits; quality is not assessed."""
    from imagededup.methods import PHash  # noqa: PLC0415

    duplicates = PHash(verbose=False).find_duplicates(image_dir=str(folder), recursive=True)
    alike = {str(folder / a): {str(folder / b) for b in others} for a, others in duplicates.items()}
    return alike, None


def main() -> None:
    """Write OUT.json: `alike` maps a path to its duplicates, `poor` is a list of paths or null."""
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    alike, poor = {"cleanvision": cleanvision, "imagededup": imagededup}[name](folder)

    def below(path: str) -> str:
        return Path(path).relative_to(folder).as_posix()

    result = {
        "alike": {below(a): sorted(map(below, others)) for a, others in alike.items()},
        "poor": None if poor is None else sorted(map(below, poor)),
    }
    out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
