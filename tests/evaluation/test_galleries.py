import numpy as np
import pandas as pd
import pytest
import torch

from anklealign.evaluation import galleries
from tests.explainability.test_attribution import SIDE, bundle_of


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "actual": generator.choice(["a", "b"], 60),
            "predicted": generator.choice(["a", "b", "c"], 60),
            "probability": generator.uniform(0.34, 1, 60).round(3),
            "path": [f"p{n:02}.jpg" for n in range(60)],
        }
    )
    return table.assign(row=np.arange(60), left=8, top=0, right=56, bottom=SIDE)


def test_each_class_shows_its_surest_right_surest_wrong_and_least_sure(predictions):
    found = galleries.chosen(predictions)
    assert not found.index.has_duplicates
    for name in "ab":
        here = predictions[predictions.actual == name]
        right = here[here.predicted == name]
        wrong = here[here.predicted != name]
        kinds = found[found.actual == name].groupby("kind")
        surest = {
            "surest right": right.nlargest(4, "probability"),
            "surest wrong": wrong.nlargest(4, "probability"),
            "least sure": here.nsmallest(4, "probability"),
        }
        for kind, rows in surest.items():
            assert set(kinds.get_group(kind).index) == set(rows.index), (name, kind)


def test_the_choice_does_not_depend_on_the_order_of_rows(predictions):
    tied = predictions.assign(probability=predictions.probability.round(1))
    shuffled = tied.sample(frac=1, random_state=3)
    assert galleries.chosen(tied).equals(galleries.chosen(shuffled))


@pytest.mark.parametrize("name", ["anklealign_cnn", "vit_tiny_patch16_224"])
def test_there_is_a_page_a_class_and_one_of_heads_for_a_transformer(name, predictions):
    bundle = bundle_of(name, **({"depth": 2} if name.startswith("vit") else {}))
    store = np.random.default_rng(1).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    pages = list(galleries.explained(predictions, predictions, store, bundle, torch.device("cpu")))
    if name.startswith("vit"):
        assert len(pages) == 4  # three pictures a tile, six tiles a page
        heads = galleries.heads(predictions, predictions, store, bundle, torch.device("cpu"))
        assert len(list(heads)) == 1
    else:
        assert len(pages) == 2


def test_no_head_is_left_out(predictions, monkeypatch):
    bundle = bundle_of("vit_tiny_patch16_224", depth=1, num_heads=8, embed_dim=64)
    store = np.random.default_rng(1).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    tiles = []
    monkeypatch.setattr(galleries.sheets, "pages", lambda some, *_: tiles.extend(some) or [])
    list(galleries.heads(predictions, predictions, store, bundle, torch.device("cpu")))
    assert [tile.lines[1] for tile in tiles] == ["heads 1 to 6 of 8", "heads 7 to 8 of 8"] * 2
    assert [len(tile.pictures) for tile in tiles] == [7, 3] * 2
