"""Plots as matplotlib figures, drawn without a screen and the same to the byte each time."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anklealign.io.files import replacing

# Okabe and Ito's palette, told apart by colour-blind readers too (2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

LONGEST = 28  # letters of a name beside a bar


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Write the figure as PNG, without the matplotlib version that it would otherwise carry."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def new(width: float, height: float) -> Figure:
    """Return an empty figure, inches wide and high, that lays itself out."""
    return Figure(figsize=(width, height), layout="constrained")


def short(name: str) -> str:
    """Return a name that fits beside a bar."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
