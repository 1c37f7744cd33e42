"""Paths of the pipeline's inputs and outputs, relative to the project's root folder."""

from pathlib import Path

RAW = Path("data/raw")  # one folder per dataset
PREPARED = Path("data/prepared")
CLEAN = Path("data/clean")
SPLIT = Path("data/split")
MODEL = Path("model")
METRICS = Path("metrics")
SCORES = METRICS / "scores.json"  # the headline metrics
DETAILS = METRICS / "details"  # one JSON file per stage
CARD = METRICS / "MODEL_CARD.md"
PLOTS = Path("plots")  # one folder per stage

STORE = PREPARED / "pixels.npy"
VOTES = PREPARED / "votes.csv"
SOFT_LABELS = PREPARED / "soft_labels.csv"
HISTORY = PLOTS / "train/history.csv"  # one row per epoch
REPORT = PLOTS / "report.html"
