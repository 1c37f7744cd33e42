import numpy as np
import pytest

from anklealign.experiments.runs import Run, against, flat, table, used, variants
from anklealign.metrics.scores import point_scores
from benchmarks.comparison import simulate
from tests.experiments.test_comparison import predictions

PARAMS = {
    "dataset": "own", "model": "x", "seed": 1, "phantom": {"seed": 9},
    "datasets": {"own": {"fit": "crop"}, "other": {}},
    "models": {"x": {"epochs": 3}, "y": {"epochs": 4}}, "split": {"fold": 0},
}  # fmt: skip


def run(name, model, seed=1, fold=0, gain=0.0, **asked):
    """A run whose test photos depend on seed and fold alone, and whose answers on the gain."""
    answers = simulate(40, gain, np.random.default_rng([seed, fold]))
    metrics = {k: {"value": v} for k, v in point_scores(answers.labels, answers.second).items()}
    asked = {"model": model, **asked}
    table = predictions(answers, answers.second)
    return Run(name, asked, (str(seed), str(fold)), 10, metrics, table)


def test_only_what_a_run_used_is_asked():
    assert dict(flat(used(PARAMS))) == {
        "dataset": "own", "model": "x", "seed": "1", "split.fold": "0",
        "datasets.fit": "crop", "models.epochs": "3",
    }  # fmt: skip


def test_seeds_and_folds_are_repeats_and_other_parameters_variants():
    runs = [
        run("a", "x", seed=1, lr="1"), run("b", "x", seed=2, lr="1"), run("c", "x", fold=1, lr="2"),
        run("d", "y", lr="7"), run("workspace", "y", lr="7"),
    ]  # fmt: skip
    found = variants(runs)
    assert {name: [r.name for r in some] for name, some in found.items()} == {
        "x lr=1": ["a", "b"], "x lr=2": ["c"], "y": ["d"],
    }  # fmt: skip


def test_the_table_ranks_by_the_mean_and_compares_with_the_best():
    good = [run(f"g{n}", "good", seed=n, gain=4.0) for n in range(3)]
    poor = [run(f"p{n}", "poor", seed=n) for n in range(3)]
    lines = table(variants([*poor, *good]), "accuracy")
    assert lines[1].startswith("good")
    assert lines[1].endswith("the best")
    assert lines[2].startswith("poor")
    assert lines[2].endswith(": worse")
    values = [r.metrics["accuracy"]["value"] for r in poor]
    assert f"{np.mean(values):.3f}  {np.std(values, ddof=1):.3f}" in lines[2]


def test_less_log_loss_is_the_best():
    runs = [run("g", "good", gain=4.0), run("p", "poor")]
    assert table(variants(runs), "log_loss")[1].startswith("good")


def test_variants_are_compared_on_the_repeats_that_both_have():
    good = [run("g", "good", seed=n, gain=4.0) for n in (0, 1)]
    poor = [run("p", "poor", seed=n) for n in (1, 2)]
    shared = against([good[1]], [poor[0]], "accuracy")
    assert against(good, poor, "accuracy") == shared
    assert against(good[:1], poor, "accuracy") is None
    lines = table(variants([good[0], *poor]), "accuracy")
    assert lines[2].endswith("no seed and fold in common")


def test_other_test_photos_are_said():
    one, other = run("g", "good", gain=4.0), run("p", "poor")
    shorter = Run("p", other.asked, other.repeat, 10, other.metrics, other.predictions[1:])
    with pytest.raises(ValueError, match="test sets differ"):
        against([one], [shorter], "accuracy")
    assert table(variants([one, shorter]), "accuracy")[2].endswith("other test photos")
