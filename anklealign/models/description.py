"""Everything in a bundle but its network: what is around it from photo file to prediction set.

bundle.py describes the files. This module needs no PyTorch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from anklealign.io import files
from anklealign.models import example_photos, novelty_detector
from anklealign.models.example_photos import Examples
from anklealign.models.input_config import InputConfig
from anklealign.models.novelty_detector import NoveltyDetector

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Preprocessing:
    """Conversion of a photo file to the square that the store holds.

    Attributes:
        size: Side of the square in pixels.
        fit: How a photo that is not square is fitted.
        fill: Gray level of the borders of a letterbox, 0 to 255.
        max_megapixels: Photos with more pixels are rejected.
    """

    size: int
    fit: Literal["letterbox", "crop", "stretch"]
    fill: int
    max_megapixels: float


@dataclass(frozen=True)
class Description:
    """A trained model but for its network.

    Attributes:
        classes: K class names, in the order of the outputs.
        preprocessing: Conversion from photo file to stored square.
        input_config: Conversion from stored square to network input.
        temperature: Divisor of the logits before the softmax.
        conformal_threshold: Least calibrated probability of a class in the prediction set.
        record: Provenance: selected epoch, versions, data hashes, parameters.
        class_bias: K values that are added to the scaled logits, or none.
        novelty: Detector of photos that are unlike the training photos, if there is one.
        examples: JPEG files of photos of each class; none unless the dataset config allows them.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    input_config: InputConfig
    temperature: float
    conformal_threshold: float
    record: Mapping[str, Any]
    class_bias: tuple[float, ...] = ()
    novelty: NoveltyDetector | None = None
    examples: Examples = field(default_factory=dict)

    def as_config(self) -> dict[str, Any]:
        """Return what a program needs around the network, from photo file to prediction set."""
        return {
            "classes": list(self.classes),
            "preprocessing": asdict(self.preprocessing),
            "input": asdict(self.input_config),
            "temperature": self.temperature,
            "class_bias": list(self.class_bias),
            "conformal_threshold": self.conformal_threshold,
        }


def load(folder: Path) -> Description:
    """Load the description from a bundle's folder, and check its files.

    Raises:
        ValueError: The folder holds no bundle of this project, or its files are damaged.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        own = dict(config["anklealign"])
        classes = tuple(own.pop("classes"))
        preprocessing = Preprocessing(**own.pop("preprocessing"))
        values = own.pop("input")
        input_config = InputConfig(**values | {k: tuple(values[k]) for k in ("mean", "std")})
        temperature = float(own.pop("temperature"))
        class_bias = tuple(map(float, own.pop("class_bias")))
        conformal_threshold = float(own.pop("conformal_threshold"))
        expected_hash = own.pop("weights_sha256")
        novelty_config = own.pop("novelty")
        example_hashes = own.pop("examples", {})
    except FileNotFoundError:
        raise ValueError(
            f"{folder / CONFIG} does not exist; train a model with `dvc repro train`, or fetch one "
            "with `dvc pull`"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / CONFIG} is not the config of an AnkleAlign bundle of this version "
            f"({error!r}); train a model with `dvc repro train`"
        ) from None
    if not (folder / WEIGHTS).is_file() or files.sha256(folder / WEIGHTS) != expected_hash:
        raise ValueError(
            f"{folder / WEIGHTS} is missing or does not match {CONFIG}; restore both with "
            "`dvc checkout` or `dvc pull`"
        )
    return Description(
        classes, preprocessing, input_config, temperature, conformal_threshold, own, class_bias,
        novelty_config and novelty_detector.load(folder, novelty_config),
        example_photos.load(folder, example_hashes),
    )  # fmt: skip
