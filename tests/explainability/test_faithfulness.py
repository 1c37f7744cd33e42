import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from anklealign.config import params, paths
from anklealign.explainability import attribution, faithfulness
from anklealign.explainability.attribution import heat_maps
from anklealign.inference.predictor import Predictor
from anklealign.io import pixel_store, results
from anklealign.models import inputs
from anklealign.models.inputs import logits, to_input
from tests.explainability.test_attribution import SIDE, bundle_of

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def red():
    """A bundle whose class b is the mean redness, and photos with one red patch each."""
    bundle = bundle_of("anklealign_cnn", widths=[4], grid=[1, 1])
    with torch.no_grad():
        for weights in bundle.model.parameters():
            weights.zero_()
        bundle.model.stages[0][1].weight.fill_(1)
        bundle.model.stages[0][0].weight[0, 0, 1, 1] = 1
        bundle.model.head.weight[1, 0] = 100
    photos = np.zeros((6, SIDE, SIDE, 3), np.uint8)
    for n, photo in enumerate(photos):
        photo[8 * n : 8 * n + 8, 16:24, 0] = 255
    return bundle, photos, np.ones(6, np.int64)


def test_a_faithful_map_beats_random_orders_and_an_inverted_one_does_not(red):
    bundle, photos, classes = red
    maps = faithfulness.cell_means(heat_maps(bundle, photos, classes))
    orders = faithfulness.cell_orders(maps, seed=1)
    right = faithfulness.areas(bundle, photos, classes, orders, CPU)
    assert (right.deletion < right.deletion_random).all()
    assert (right.insertion > right.insertion_random).all()
    orders = faithfulness.cell_orders(1 - maps, seed=1)
    wrong = faithfulness.areas(bundle, photos, classes, orders, CPU)
    assert (wrong.deletion > wrong.deletion_random).all()
    assert (wrong.insertion < wrong.insertion_random).all()


def test_areas_are_those_of_complete_curves_with_the_ends_computed_once(red, monkeypatch):
    bundle, photos, classes = red
    cells = faithfulness.cell_means(heat_maps(bundle, photos, classes))
    orders = faithfulness.cell_orders(cells, seed=1)
    passes = []

    def counting(model, steps, *arguments):
        passes.append(len(steps))
        return logits(model, steps, *arguments)

    monkeypatch.setattr(faithfulness, "logits", counting)
    measured = faithfulness.areas(bundle, photos, classes, orders, CPU)
    assert passes == [32] * 6
    for n, (photo, heat) in enumerate(zip(photos, cells, strict=True)):
        order = np.argsort(-heat.ravel(), kind="stable")
        blurred = faithfulness.gaussian_filter(photo, (faithfulness.BLUR * SIDE,) * 2 + (0,))
        for start, end, area in (
            (photo, blurred, measured.deletion[n]), (blurred, photo, measured.insertion[n]),
        ):  # fmt: skip
            steps = faithfulness.replace_cells(start, end, order)
            outputs = logits(bundle.model, steps, np.arange(7), bundle.input_config, CPU)
            p = faithfulness.calibration.probabilities(outputs, bundle.temperature, ())[:, 1]
            assert area == pytest.approx(np.trapezoid(p, dx=1 / 6), abs=1e-5)


def test_the_metrics_are_deterministic(red):
    bundle, photos, classes = red
    first = faithfulness.measure(bundle, photos, classes, seed=1, device=CPU)
    assert first == faithfulness.measure(bundle, photos, classes, seed=1, device=CPU)
    assert first["photos"] == 6
    assert first["deletion_gain"] > 0.05
    assert first["insertion_gain"] > 0.05
    assert first["deletion_better_share"] == first["insertion_better_share"] == 1


def test_steps_go_from_one_photo_to_the_other_in_order():
    start, end = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    order = np.arange(faithfulness.CELLS**2)
    steps = faithfulness.replace_cells(start, end, order)
    assert np.array_equal(steps[0], start)
    assert np.array_equal(steps[-1], end)
    done = steps[:, :, :, 0].mean((1, 2)) / 255
    assert np.allclose(done, np.linspace(0, 1, len(steps)), atol=0.05)
    # Cells go row by row in this order: the top is changed before the bottom.
    assert steps[2, 0].min() == 255
    assert steps[2, -1].max() == 0


def test_cell_means_are_means_at_any_side():
    assert np.allclose(faithfulness.cell_means(np.ones((1, 50, 50), np.float32)), 1)
    corner = np.zeros((1, 32, 32), np.float32)
    corner[0, :2, :2] = 1
    (means,) = faithfulness.cell_means(corner)
    assert means[0, 0] == 1
    assert means.sum() == 1


def test_an_untrained_network_has_other_weights_in_every_layer():
    for name, arguments in (("resnet18", {}), ("vit_tiny_patch16_224", {"depth": 2})):
        bundle = bundle_of(name, **arguments)
        before = {k: v.clone() for k, v in bundle.model.named_parameters()}
        other = faithfulness.randomize_weights(bundle, 5)
        for key, weights in other.model.named_parameters():
            assert torch.equal(before[key], dict(bundle.model.named_parameters())[key])
            if weights.ndim > 1:
                assert not torch.equal(weights, before[key]), key
        again = faithfulness.randomize_weights(bundle, 5)
        states = zip(other.model.parameters(), again.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in states)


def test_correlation_is_one_with_itself_and_none_with_a_flat_map():
    maps = np.random.default_rng(1).random((2, 16, 16))
    assert np.allclose(faithfulness.correlations(maps, maps), 1)
    assert np.allclose(faithfulness.correlations(maps, 1 - maps), -1)
    assert faithfulness.correlations(maps, np.zeros_like(maps)).tolist() == [0, 0]


def photos_with_a_patch(count: int, seed: int):
    """Noise with a patch in one of three colors, anywhere; the color is the class."""
    generator = np.random.default_rng(seed)
    photos = generator.integers(60, 140, (count, SIDE, SIDE, 3), np.uint8)
    labels = generator.integers(0, 3, count)
    inside = np.zeros((count, SIDE, SIDE), bool)
    for n, (top, left) in enumerate(generator.integers(0, SIDE - 12, (count, 2))):
        inside[n, top : top + 12, left : left + 12] = True
        photos[n, inside[n]] = 255 * np.eye(3)[labels[n]]
    return photos, labels, inside


def test_a_trained_network_s_maps_beat_chance_and_an_untrained_one_s_do_not():
    bundle = bundle_of("anklealign_cnn", widths=[8, 16], grid=[1, 1])
    photos, labels, _ = photos_with_a_patch(96, 1)
    model = bundle.model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x = to_input(photos, bundle.input_config, CPU)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), torch.tensor(labels)).backward()
        optimizer.step()
    seen, truth, inside = photos_with_a_patch(24, 2)
    rows = np.arange(len(seen))
    outputs = logits(model.eval(), seen, rows, bundle.input_config, CPU)
    assert (outputs.argmax(1) == truth).mean() > 0.9
    found = faithfulness.measure(bundle, seen, truth, seed=1, device=CPU)
    assert min(found["deletion_gain"], found["insertion_gain"]) > 0.02
    assert min(found["deletion_better_share"], found["insertion_better_share"]) > 0.7
    assert abs(found["untrained_correlation"]) < 0.5
    fresh = faithfulness.randomize_weights(bundle, 7)
    chance = faithfulness.measure(fresh, seen, truth, seed=1, device=CPU)
    assert max(chance["deletion_gain"], chance["insertion_gain"]) < 0.005

    def share_inside(chosen) -> float:
        heat = heat_maps(chosen, seen, truth)
        return float((heat * inside).sum() / heat.sum())

    assert share_inside(bundle) > 3 * inside.mean() > share_inside(fresh)


def test_the_committed_metrics_say_that_the_maps_beat_chance():
    # The size of the gain on these 24 photos is mostly noise: two machines gave 0.059 and 0.003 for
    # insertion. The next test holds it on all photos.
    metrics = results.read_details(ROOT / "metrics/details/evaluate.json")["explanations"]
    assert metrics["deletion_gain"] > 0
    assert metrics["insertion_gain"] > 0
    assert min(metrics["deletion_better_share"], metrics["insertion_better_share"]) > 0.5
    assert abs(metrics["untrained_correlation"]) < 0.5


@pytest.mark.slow
def test_the_maps_of_the_trained_model_beat_chance_on_all_photos(monkeypatch):
    """Measured on 320 photos: 0.064 (deletion) and 0.034 (insertion)."""
    monkeypatch.chdir(ROOT)
    if not (ROOT / "model/config.json").exists() or not (ROOT / paths.STORE).exists():
        pytest.skip("model/ and data/prepared/ do not exist; run `dvc repro`")
    if params.read()["dataset"] != "synthetic":
        pytest.skip("the bounds are those of the synthetic set")
    predictor = Predictor.load("model", "cpu")
    photos = pixel_store.open_store()[
        pixel_store.read_table(paths.SPLIT / "photos.csv").row.to_numpy()
    ]
    classes = predictor.probabilities(photos).argmax(1)
    metrics = faithfulness.measure(predictor.bundle, photos, classes, 1, predictor.device)
    assert metrics["photos"] >= 300
    assert metrics["deletion_gain"] > 0.02
    assert metrics["insertion_gain"] > 0.02
    assert min(metrics["deletion_better_share"], metrics["insertion_better_share"]) > 0.5


def test_each_part_of_the_measurement_shows_a_progress_bar(red, monkeypatch, capsys):
    bundle, photos, classes = red
    # Without the delay of a second, and without a terminal.
    shown = {"delay": 0, "disable": False}
    for module in (inputs, attribution):
        monkeypatch.setattr(module, "tqdm", lambda *a, **k: tqdm(*a, **k | shown))
    faithfulness.measure(bundle, np.repeat(photos, 3, 0), np.repeat(classes, 3), 1, CPU)
    output = capsys.readouterr().err
    assert {"network:", "heat maps:"} <= set(re.findall(r"[a-z ]+:", output))
