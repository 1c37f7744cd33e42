import numpy as np
import pandas as pd
import pytest

from anklealign.reporting import photo_statistics


def test_gray_and_red_photos_have_known_measures():
    gray = photo_statistics.measure(np.full((8, 8, 3), 51, np.uint8))
    assert gray["brightness"] == pytest.approx(0.2)
    assert gray["contrast"] == pytest.approx(0)
    assert gray["saturation"] == 0
    red = photo_statistics.measure(np.full((8, 8, 3), (255, 0, 0), np.uint8))
    assert red["brightness"] == pytest.approx(0.299)
    assert red["saturation"] == 1
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:4] = 255
    assert photo_statistics.measure(stripes)["contrast"] == pytest.approx(0.5)


def table_of(levels: list[int]) -> tuple[pd.DataFrame, np.ndarray]:
    store = np.zeros((len(levels), 16, 16, 3), np.uint8)
    store[:, 4:12] = np.array(levels)[:, None, None, None]  # between black letterbox borders
    table = pd.DataFrame(
        {"row": range(len(levels)), "left": 0, "top": 4, "right": 16, "bottom": 12}
    )
    table["id"] = [f"{n:012x}" for n in range(len(levels))]
    table["label"] = ["dark", "light"] * (len(levels) // 2)
    return table.assign(width=200, height=100), store


def test_a_class_of_darker_photos_is_named_and_borders_do_not_count():
    table, store = table_of([50, 150, 60, 160, 55, 140, 45, 155])
    dark, light = photo_statistics.class_statistics(table, store, ["dark", "light"])
    assert dark["brightness"][2] == pytest.approx(52.5 / 255, abs=1e-3)
    assert light["color"] == "#979797"
    assert dark["effect"]["brightness"] == -light["effect"]["brightness"] < -5
    assert (dark["side"], dark["landscape"], dark["portrait"]) == (100, 1.0, 0.0)
    sentences = photo_statistics.differences([dark, light])
    assert sentences[0].startswith("Photos of dark are much darker than the others")
    assert len(sentences) == 2


def test_equal_classes_have_no_difference():
    table, store = table_of([50, 50, 60, 60, 55, 55, 45, 45])
    statistics = photo_statistics.class_statistics(table, store, ["dark", "light"])
    assert photo_statistics.differences(statistics) == []


def test_one_photo_of_a_class_has_no_effect_size():
    assert photo_statistics.effect_size(pd.Series([1.0]), pd.Series([1.0, 2.0])) == 0
    assert photo_statistics.effect_size(pd.Series([1.0, 1.0]), pd.Series([2.0, 2.0])) == 0
