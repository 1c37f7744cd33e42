import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import cleaning_losses

VERDICTS = pd.read_csv(cleaning_losses.VERDICTS, dtype=str, keep_default_na=False)


@pytest.fixture
def folder(tmp_path):
    """A set of 24 photos, of which 4 are dark and 2 small; half of each are in either class."""
    rng = np.random.default_rng(0)
    for n in range(24):
        levels = rng.integers(20, 230, (12, 16, 3)) * (0.1 if n < 4 else 1)
        size = (40, 30) if 4 <= n < 6 else (320, 240)
        (tmp_path / f"trial/{n % 2}").mkdir(parents=True, exist_ok=True)
        photo = Image.fromarray(levels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        photo.save(tmp_path / f"trial/{n % 2}/{n}.png")
    return tmp_path / "trial"


def test_usable_photos_that_are_lost_and_unusable_ones_that_are_found_are_counted(
    folder, tmp_path, monkeypatch, capsys
):
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text(
        "set,path,usable,note\ntrial,0/0.png,no,\ntrial,0/8.png,no,\nother,1/1.png,no,\n"
    )
    monkeypatch.setattr(cleaning_losses, "VERDICTS", verdicts)
    raw = cleaning_losses.params.read(cleaning_losses.ROOT / "params.yaml")
    raw["clean"]["actions"] |= {"dark": "remove", "too_small": "flag"}
    monkeypatch.setattr(cleaning_losses.params, "read", lambda _: raw)
    monkeypatch.setattr("sys.argv", ["cleaning_losses", str(folder), "--list"])
    # Three of the dark photos count as usable, so more than the goal of half B is lost.
    assert cleaning_losses.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("removed, dark" in line for line in lines) == 4
    assert [line.endswith("; not usable") for line in lines if "trial/0/0.png" in line] == [True]
    assert sum("flagged, too_small" in line and line.endswith("; usable") for line in lines) == 2
    header, *cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"
    ]
    rows = [dict(zip(header, row, strict=True)) for row in cells[1:]]
    assert [(row["set"], row["half"]) for row in rows] == [("trial", "A"), ("trial", "B")]
    columns = {
        "usable": 22, "lost": 3, "flagged": 2, "unusable": 2, "unusable removed": 1,
        "unusable flagged": 0, "beyond a threshold": 6,
    }  # fmt: skip
    assert {name: sum(int(row[name]) for row in rows) for name in columns} == columns


def test_the_verdicts_name_each_photo_once_in_a_set_whose_source_is_known():
    assert set(VERDICTS.usable) == {"yes", "no"}
    assert not VERDICTS.duplicated(["set", "path"]).any()
    for name in VERDICTS.set.unique():
        assert f"\n    {name} " in cleaning_losses.__doc__
    unusable = cleaning_losses.read_verdicts(cleaning_losses.VERDICTS)
    assert sum(map(len, unusable.values())) == (VERDICTS.usable == "no").sum()
