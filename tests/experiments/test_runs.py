import numpy as np
import pytest

from anklealign.experiments.runs import (
    Run,
    difference_to_best,
    flat,
    table,
    used_params,
    variants,
)
from anklealign.metrics.scores import point_scores
from benchmarks.comparison import simulate
from tests.experiments.test_comparison import predictions

PARAMS = {
    "dataset": "own", "model": "x", "seed": 1, "synthetic": {"seed": 9},
    "datasets": {"own": {"fit": "crop"}, "other": {}},
    "models": {"x": {"epochs": 3}, "y": {"epochs": 4}}, "split": {"fold": 0},
}  # fmt: skip


def run(name, model, seed=1, fold=0, gain=0.0, **params):
    """Return a run; seed and fold determine its test photos, the gain its predictions."""
    paired = simulate(40, gain, np.random.default_rng([seed, fold]))
    metrics = {k: {"value": v} for k, v in point_scores(paired.labels, paired.second).items()}
    params = {"model": model, **params}
    table = predictions(paired, paired.second)
    return Run(name, params, (str(seed), str(fold)), 10, metrics, table)


def test_used_params_are_those_of_the_chosen_dataset_and_model():
    assert dict(flat(used_params(PARAMS))) == {
        "dataset": "own", "model": "x", "seed": "1", "split.fold": "0",
        "datasets.fit": "crop", "models.epochs": "3",
    }  # fmt: skip


def test_seeds_and_folds_are_repeats_and_other_parameters_variants():
    runs = [
        run("a", "x", seed=1, lr="1"), run("b", "x", seed=2, lr="1"), run("c", "x", fold=1, lr="2"),
        run("d", "y", lr="7"), run("workspace", "y", lr="7"),
    ]  # fmt: skip
    by_name = variants(runs)
    assert {name: [r.name for r in repeats] for name, repeats in by_name.items()} == {
        "x lr=1": ["a", "b"], "x lr=2": ["c"], "y": ["d"],
    }  # fmt: skip


def test_table_ranks_by_mean_score_and_compares_with_the_best():
    good = [run(f"g{n}", "good", seed=n, gain=4.0) for n in range(3)]
    poor = [run(f"p{n}", "poor", seed=n) for n in range(3)]
    lines = table(variants([*poor, *good]), "accuracy")
    assert lines[1].startswith("good")
    assert lines[1].endswith("best")
    assert lines[2].startswith("poor")
    assert lines[2].endswith(": worse")
    values = [r.metrics["accuracy"]["value"] for r in poor]
    assert f"{np.mean(values):.3f}  {np.std(values, ddof=1):.3f}" in lines[2]


def test_lowest_log_loss_is_the_best():
    runs = [run("g", "good", gain=4.0), run("p", "poor")]
    assert table(variants(runs), "log_loss")[1].startswith("good")


def test_variants_are_compared_on_their_common_repeats():
    good = [run("g", "good", seed=n, gain=4.0) for n in (0, 1)]
    poor = [run("p", "poor", seed=n) for n in (1, 2)]
    shared = difference_to_best([good[1]], [poor[0]], "accuracy")
    assert difference_to_best(good, poor, "accuracy") == shared
    assert difference_to_best(good[:1], poor, "accuracy") is None
    lines = table(variants([good[0], *poor]), "accuracy")
    assert lines[2].endswith("no common seed and fold")


def test_different_test_photos_are_reported():
    one, other = run("g", "good", gain=4.0), run("p", "poor")
    shorter = Run("p", other.params, other.repeat, 10, other.metrics, other.predictions[1:])
    with pytest.raises(ValueError, match="test splits differ"):
        difference_to_best([one], [shorter], "accuracy")
    assert table(variants([one, shorter]), "accuracy")[2].endswith("different test photos")
