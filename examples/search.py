"""Search hyperparameters with Optuna. Every trial is a DVC experiment.

    python examples/search.py --trials 20
    python examples/search.py --trials 20 --model mobilenet_v2_frozen
    dvc exp show --only-changed

The objective is the validation log loss; no trial sees the test split's scores. The study is stored
in search.log: run the script again after an interruption, and it continues until the study has that
many finished trials. `dvc exp apply search-grid-pool-cnn-7` takes over the trial with that number.

Needs Optuna: pip install optuna
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from anklealign.config import paths
from anklealign.io import results
from anklealign.metrics.scores import LOWER_IS_BETTER

SCORE = "log_loss"  # of the validation split


def sampled_params(trial: optuna.Trial, model: str) -> dict[str, float]:
    """Return the parameters of a trial. Change this function to search others."""
    return {
        f"models.{model}.learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "train.weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        "train.label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }


def objective(trial: optuna.Trial, model: str) -> float:
    """Run an experiment and return its validation score.

    Raises:
        TrialPruned: The run fails, for example because the loss is not finite.
    """
    # One training seed per trial: the search compares settings, not seeds.
    values = {"model": model, "train.repeats": 1, **sampled_params(trial, model)}
    changes = [option for key, value in values.items() for option in ("-S", f"{key}={value}")]
    name = f"search-{model.replace('_', '-')}-{trial.number}"
    # The stages run with `python` from PATH, which must be this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, *changes]
    if subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode:  # noqa: S603
        raise optuna.TrialPruned
    score: float = results.read_details(paths.DETAILS / "train.json")["val"][SCORE]
    return score


def main() -> None:
    """Continue the study until it has the requested number of finished trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--model", default="grid_pool_cnn", help="key of models in params.yaml")
    parser.add_argument("--storage", type=Path, default=Path("search.log"))
    options = parser.parse_args()
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(options.storage))),
        study_name=options.model,
        sampler=optuna.samplers.TPESampler(seed=1),
        direction="minimize" if SCORE in LOWER_IS_BETTER else "maximize",
        load_if_exists=True,
    )
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    study.optimize(
        lambda trial: objective(trial, options.model), n_trials=options.trials - len(finished)
    )
    if not any(trial.value is not None for trial in study.trials):
        sys.exit("search: no trial finished; see the errors of DVC above")
    best = study.best_trial
    print(f"best of {len(study.trials)} trials: number {best.number}, {SCORE} {best.value:.4f}")


if __name__ == "__main__":
    main()
