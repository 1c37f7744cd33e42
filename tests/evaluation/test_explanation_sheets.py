import numpy as np
import pandas as pd
import pytest
import torch

from anklealign.evaluation import explained_photos, explanation_sheets
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
    table["id"] = [f"{n:012x}" for n in range(60)]
    return table.assign(row=np.arange(60), left=8, top=0, right=56, bottom=SIDE)


def test_each_class_shows_its_most_and_least_confident_predictions(predictions):
    found = explained_photos.select(predictions)
    assert not found.index.has_duplicates
    for name in "ab":
        here = predictions[predictions.actual == name]
        right = here[here.predicted == name]
        wrong = here[here.predicted != name]
        kinds = found[found.actual == name].groupby("kind")
        surest = {
            "most confident correct": right.nlargest(4, "probability"),
            "most confident wrong": wrong.nlargest(4, "probability"),
            "least confident": here.nsmallest(4, "probability"),
        }
        for kind, rows in surest.items():
            assert set(kinds.get_group(kind).index) == set(rows.index), (name, kind)


def test_selection_does_not_depend_on_row_order(predictions):
    tied = predictions.assign(probability=predictions.probability.round(1))
    shuffled = tied.sample(frac=1, random_state=3)
    assert explained_photos.select(tied).equals(explained_photos.select(shuffled))


@pytest.mark.parametrize("name", ["anklealign_cnn", "vit_tiny_patch16_224"])
def test_one_page_per_class_and_one_of_attention_heads_for_a_transformer(name, predictions):
    bundle = bundle_of(name, **({"depth": 2} if name.startswith("vit") else {}))
    store = np.random.default_rng(1).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    arrays = explained_photos.attribution_maps(
        predictions, predictions, store, bundle, torch.device("cpu")
    )
    pages = list(explanation_sheets.attribution_sheets(arrays, predictions, store))
    if name.startswith("vit"):
        assert len(pages) == 4  # three pictures a tile, six tiles a page
        heads = explanation_sheets.attention_head_sheets(arrays, predictions, store)
        assert len(list(heads)) == 1
    else:
        assert len(pages) == 2
        assert "heads" not in arrays


def test_every_attention_head_is_shown(predictions, monkeypatch):
    bundle = bundle_of("vit_tiny_patch16_224", depth=1, num_heads=8, embed_dim=64)
    store = np.random.default_rng(1).integers(0, 256, (60, SIDE, SIDE, 3), np.uint8)
    tiles = []
    monkeypatch.setattr(
        explanation_sheets.contact_sheets, "pages", lambda some, *_: tiles.extend(some) or []
    )
    arrays = explained_photos.attribution_maps(
        predictions, predictions, store, bundle, torch.device("cpu")
    )
    list(explanation_sheets.attention_head_sheets(arrays, predictions, store))
    assert [tile.lines[1] for tile in tiles] == ["heads 1 to 6 of 8", "heads 7 to 8 of 8"] * 2
    assert [len(tile.pictures) for tile in tiles] == [7, 3] * 2


def test_of_many_classes_those_with_the_lowest_recall_are_explained():
    count = explained_photos.MAX_CLASSES + 5
    rows = [
        {"actual": f"c{k:02}", "predicted": f"c{k:02}" if n < k else "x", "probability": 0.5}
        for k in range(count)
        for n in range(count)
    ]
    table = pd.DataFrame(rows)
    table["path"] = [f"{n:04}" for n in range(len(table))]
    shown = explained_photos.select(table).actual.unique().tolist()
    assert shown == [f"c{k:02}" for k in range(explained_photos.MAX_CLASSES)]
