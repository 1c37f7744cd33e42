"""Paths of the pipeline's inputs and outputs, relative to the project's root folder."""

from pathlib import Path

RAW = Path("data/raw")  # one folder per dataset
CORRECTIONS = Path(
    "data/label_corrections.csv"
)  # in git; anklealign/annotation/label_corrections.py
PREPARED = Path("data/prepared")
CLEAN = Path("data/clean")
SPLIT = Path("data/split")
TRAINED = Path("data/train")
MODEL = Path("model")
METRICS = Path("metrics")
SCORES = METRICS / "scores.json"  # the headline metrics
DETAILS = METRICS / "details"  # one JSON file per stage
PLOTS = Path("plots")  # one folder per stage

STORE = PREPARED / "pixels"  # a folder: anklealign/io/pixel_store.py
VOTES = PREPARED / "votes.csv"
SOFT_LABELS = PREPARED / "soft_labels.csv"
CANDIDATES = TRAINED / "candidates.csv"  # scores of the candidates of `auto`
REPEATS = TRAINED / "repeats.csv"  # test probabilities of each training seed
PREDICTIONS = PLOTS / "evaluate/predictions.csv"  # one row per test photo
HISTORY = PLOTS / "train/history.csv"  # one row per epoch
# Arrays that the report draws.
AUGMENTED = PLOTS / "train/augmented.npz"
EXPLANATIONS = PLOTS / "evaluate/explanations.npz"
REPORT = PLOTS / "report.html"
MODEL_CARD = METRICS / "MODEL_CARD.md"
CHECKLIST = METRICS / "REPORTING_CHECKLIST.md"

# Written by commands, and neither outputs of the pipeline nor tracked by git.
EXPORT = Path("export/model.onnx")
LABEL_ISSUES = Path("label_issues")
NEXT_PHOTOS = Path("next_photos")
EVALUATION = Path("evaluation")  # of `anklealign evaluate`
LEARNING_CURVE = Path("learning_curve")
PULL_REQUEST = Path("report")
CACHE = Path(".anklealign_cache")  # saves time and changes no result: anklealign/io/result_cache.py

# The synthetic set.
SYNTHETIC = RAW / "synthetic"
TRUTH = Path("data/synthetic/truth.csv")
