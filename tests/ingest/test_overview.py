"""The first look shows every class, is the same each time, and survives any dataset."""

import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.ingest import overview
from anklealign.io.pixel_store import photo_id


def dataset(*, labels, collectors=("",), given=("",), photos=60, sizes=(200, 3000)):
    rng = np.random.default_rng(1)
    rows = []
    for n in range(photos):
        collector, label = collectors[n % len(collectors)], labels[n % len(labels)]
        path = f"{collector or 'x'}/{label}-{n}.jpg"
        width, height = (int(side) for side in rng.integers(*sizes, 2))
        rows.append(
            {
                "id": photo_id(path), "row": n, "path": path, "label": label,
                "collector": collector, "predefined_split": given[n % len(given)], "width": width,
                "height": height, "format": "JPEG", "left": 0, "top": 8, "right": 32, "bottom": 24,
            }
        )  # fmt: skip
    store = rng.integers(0, 255, (photos, 32, 32, 3), np.uint8)
    return pd.DataFrame(rows), store


def test_each_class_has_a_sheet_and_the_numbers_two_pictures(tmp_path):
    table, store = dataset(labels=["ant", "Béka/1"], collectors=["a", "b", "c"])
    overview.write_overview(tmp_path, table, store, ["ant", "Béka/1"], {"no_task": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "class_01_ant_01.png", "class_02_beka_1_01.png", "collectors.png", "overview.png",
    ]  # fmt: skip
    for path in tmp_path.iterdir():
        Image.open(path).verify()


def test_photos_without_collectors_have_no_picture_of_them(tmp_path):
    table, store = dataset(labels=["ant"], photos=3)
    overview.write_overview(tmp_path, table, store, ["ant"], {})
    assert not (tmp_path / "collectors.png").exists()


def test_the_sample_is_spread_over_collectors_and_parts_whatever_the_order():
    table, _ = dataset(labels=["ant"], collectors=["many"] * 8 + ["few"], photos=90)
    taken = overview.sample_photos(table, 16)
    assert taken.collector.value_counts().to_dict() == {"few": 8, "many": 8}
    assert taken.path.is_monotonic_increasing
    shuffled = table.sample(frac=1, random_state=3)
    assert overview.sample_photos(shuffled, 16).id.tolist() == taken.id.tolist()
    assert len(overview.sample_photos(table, 1000)) == 90
    parts, _ = dataset(labels=["ant"], given=["train"] * 9 + ["val"], photos=100)
    assert overview.sample_photos(parts, 20).predefined_split.value_counts().to_dict() == {
        "train": 10,
        "val": 10,
    }


@pytest.mark.parametrize("sides", [(32, 2900), (64, 300), (150, 3000), (700, 1600), (20, 12000)])
@pytest.mark.parametrize("shape", [1, 2.5, 9])
def test_no_two_ticks_touch(sides, shape):
    table, _ = dataset(labels=["ant"], photos=4)
    table.height = [*sides, *sides]
    table.width = [round(shape * sides[0]), sides[1], sides[0], round(shape * sides[1])]
    figure = overview.overview_figure(table, ["ant"], {"no_task": 3}, 256)
    figure.canvas.draw()
    for axes in figure.axes[2:]:
        ends = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
        ends.sort(key=lambda end: end.x0)
        assert len(ends) >= 3
        for one, other in itertools.pairwise(ends):
            assert one.x1 + 4 < other.x0


def test_the_pictures_are_the_same_to_the_byte(tmp_path):
    table, store = dataset(labels=["ant", "bee"], collectors=["a", "b"], photos=8)
    for name in ("one", "two"):
        overview.write_overview(tmp_path / name, table, store, ["ant", "bee"], {"no_task": 1})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    "facts",
    [
        {"labels": ["one"], "photos": 1},
        {"labels": [f"class {n}" for n in range(45)], "photos": 45, "sizes": (64, 65)},
        {"labels": ["$x^", "a_b%", "好"], "sizes": (1, 9000), "photos": 45,
         "collectors": ["$", "👣", "%_", *(f"{n}-" + "long" * 30 for n in range(42))]},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_any_dataset_can_be_drawn(tmp_path, facts):
    table, store = dataset(**facts)
    classes = list(dict.fromkeys(facts["labels"]))
    skipped = {f"reason_{n}": n for n in range(1, 30)}
    overview.write_overview(tmp_path, table, store, classes, skipped)
    assert len(list(tmp_path.glob("class_*.png"))) == len(classes)
