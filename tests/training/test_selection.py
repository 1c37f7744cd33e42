"""The cost of candidates, which of them fit into a budget, and which one is best."""

from dataclasses import replace

from anklealign.config.params import Model
from anklealign.training import selection
from anklealign.training.selection import Trial, TrialCost

PROBE = Model(
    "x", image_size=224, epochs=0, learning_rate=0.0, pretrained=True, frozen=True,
    logistic_regression=True,
)  # fmt: skip
TUNED = replace(PROBE, epochs=5, learning_rate=0.1, frozen=False)


def test_a_probe_passes_each_photo_once() -> None:
    assert selection.image_passes(PROBE, 400, 100, 3) == TrialCost(500, 0)


def test_fine_tuning_costs_its_folds_and_its_seeds() -> None:
    cost = selection.image_passes(TUNED, 400, 100, 3)
    # Features of the head; 4 fits to 300 photos, with validation and calibration; held-out photos.
    assert cost.cross_validation == 500 + 4 * (5 * (3 * 300 + 100) + 100) + 400
    assert cost.run == 3 * (5 * (3 * 400 + 100) + 500)


def test_a_pass_of_a_smaller_image_costs_by_its_area() -> None:
    small = replace(PROBE, image_size=112)
    assert selection.image_passes(small, 400, 100, 3) == TrialCost(125, 0)


def test_the_plan_starts_with_the_cheapest_and_stays_within_the_budget() -> None:
    costs = {"dear": TrialCost(500, 400), "cheap": TrialCost(100, 0), "middle": TrialCost(200, 100)}
    assert selection.plan(costs, 1000) == ["cheap", "middle"]
    assert selection.plan(costs, 1200) == ["cheap", "middle", "dear"]
    assert selection.plan(costs, 399) == ["cheap"]
    assert selection.plan(costs, 1) == ["cheap"]  # there is always a model


def test_the_best_trial_has_the_smallest_loss_or_the_largest_score() -> None:
    cost = TrialCost(1, 1)
    trials = [
        Trial("a", cost, {"log_loss": 0.2, "accuracy": 0.8}),
        Trial("b", cost, {"log_loss": 0.3, "accuracy": 0.9}),
        Trial("c", cost),
    ]
    assert selection.best(trials, "log_loss").name == "a"
    assert selection.best(trials, "accuracy").name == "b"


def test_the_record_says_what_was_chosen_and_what_was_over_budget() -> None:
    trials = [Trial("a", TrialCost(1, 2), {"log_loss": 0.2}), Trial("b", TrialCost(10, 20))]
    assert selection.record(trials, "a")["candidates"] == {
        "a": {"image_passes": 3, "status": "chosen", "log_loss": 0.2},
        "b": {"image_passes": 30, "status": "over budget"},
    }
