"""Create and save matplotlib figures without a display; equal figures give identical files."""

import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anklealign.io.files import replacing

# The palette of Okabe and Ito (2008), which color-blind readers can distinguish.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

MAX_LENGTH = 28  # characters of a tick label


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write the figure as PNG, without the matplotlib version in its metadata."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary, warnings.catch_warnings():
        # Characters missing from the font are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def new(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, with constrained layout."""
    return Figure(figsize=(width, height), layout="constrained")


def short(name: str) -> str:
    """Return a name shortened to fit a tick label."""
    return name if len(name) <= MAX_LENGTH else name[: MAX_LENGTH - 1] + "…"
