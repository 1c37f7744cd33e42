"""The parameters of params.yaml, typed and strict: an unknown key is an error that names it.

`python -m anklealign.config.params` checks the whole file. A stage reads only the sections that
dvc.yaml declares for it, so that nothing else can change its result:

    raw = params.read()
    settings = params.section(raw, "prepare", Prepare)
    name, dataset = params.dataset(raw)
"""

import difflib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from anklealign.config.class_names import Labels

PARAMS = Path("params.yaml")
CONSENSUS = "consensus"  # split.test: the photos with votes
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Name = Annotated[str, Field(min_length=1)]
# An index of ImageNet's 1,000 classes, or a range of them, ends included: 281-285.
ImageNetIndex = (
    Annotated[int, Field(ge=0, le=999)] | Annotated[str, Field(pattern=r"^\d{1,3}-\d{1,3}$")]
)
Fit = Literal["letterbox", "crop", "stretch"]

T = TypeVar("T")


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """One photo set below data/raw: how it is laid out and what its labels mean.

    `person` is searched in each photo's path, whatever the case and without accents where that
    helps; the digits of its group `participant` are who is on the photo, one of the collector's
    participants. `csv`, its `encoding` and the columns speak of the table layout; there
    `group_column` is the person. `imagenet` tells which of ImageNet's classes each class is.
    """

    layout: Literal["folders", "label_studio", "table"]
    classes: Annotated[dict[Name, tuple[str, ...]], Field(min_length=2)]
    person: str | None = None
    ordered: bool = False
    mirror_safe: bool = True
    fit: Fit = "letterbox"
    csv: Name = "labels.csv"
    encoding: Name = "utf-8"
    path_column: Name = "path"
    label_column: Name = "label"
    group_column: Name | None = None
    imagenet: dict[Name, Annotated[tuple[ImageNetIndex, ...], Field(min_length=1)]] | None = None

    def imagenet_indices(self) -> tuple[tuple[int, ...], ...]:
        """Return each class's ImageNet indices, ascending; nothing where there is no table."""
        table = self.imagenet or {}
        return tuple(tuple(sorted(_indices(table[name]))) for name in self.classes if table)

    @model_validator(mode="after")
    def _check(self) -> "Dataset":
        if self.imagenet is not None:
            if self.imagenet.keys() != self.classes.keys():
                raise ValueError(
                    f"imagenet: {', '.join(self.imagenet)} are not the classes "
                    f"{', '.join(self.classes)}; give each class its indices"
                )
            found = [i for indices in self.imagenet_indices() for i in indices]
            twice = sorted({i for i in found if found.count(i) > 1})
            if twice:
                raise ValueError(
                    f"imagenet: {twice[0]} stands twice; a class of ImageNet is one class at most"
                )
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(
                f"encoding: {self.encoding!r} is none that Python knows; write utf-8, utf-16, "
                "cp1250, cp1252, …"
            ) from None
        if self.person is not None:
            try:
                pattern = re.compile(self.person)
            except re.error as error:
                raise ValueError(
                    f"person: {self.person!r} is no regular expression: {error}"
                ) from None
            if "participant" not in pattern.groupindex:
                raise ValueError(
                    f"person: {self.person!r} has no group named participant; "
                    "write the part that tells people apart as (?P<participant>…)"
                )
        Labels(self.classes)  # refuses an alias of two classes
        return self


def _indices(entries: tuple[int | str, ...]) -> list[int]:
    found: list[int] = []
    for entry in entries:
        first, _, last = str(entry).partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


@dataclass(frozen=True, config=STRICT)
class Phantom:
    """The generated sample set."""

    seed: Annotated[int, Field(ge=0)]
    photos: Annotated[int, Field(ge=30)]
    collectors: Count
    difficulty: NotNegative
    planted: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Prepare:
    """Photos into the pixel store."""

    size: Annotated[int, Field(ge=32, le=1024)]
    fill: Byte
    # Pillow itself refuses 178.96 MP and more.
    max_megapixels: Annotated[float, Field(gt=0, le=178)]
    consensus: Literal["majority", "dawid_skene"] = "majority"


@dataclass(frozen=True, config=STRICT)
class Clean:
    """What is removed before the split: copies, and photos that show too little."""

    hash_distance: Annotated[int, Field(ge=0, le=16)]
    residual: Share
    too_small: NotNegative
    aspect: Annotated[float, Field(ge=1)]
    dark: Annotated[float, Field(ge=0, le=255)]
    bright: Annotated[float, Field(ge=0, le=255)]
    low_contrast: Annotated[float, Field(ge=0, le=255)]
    blurred: NotNegative


@dataclass(frozen=True, config=STRICT)
class Split:
    """Parts that share no group."""

    validation: Annotated[float, Field(gt=0, lt=1)]
    test: float | str
    group: Literal["person", "collector"]
    given: Literal["keep", "ignore"]
    folds: Annotated[int, Field(ge=3)]  # one tests, one validates, the rest trains
    fold: Annotated[int, Field(ge=0)] | None
    leak_residual: Share
    leak_correlation: Annotated[float, Field(gt=0, le=1)]
    accept_leaks: tuple[tuple[Name, Name], ...]

    @field_validator("accept_leaks", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        pairs = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise ValueError(
                f"{value!r} is not a list of pairs of paths; write each accepted pair as in "
                '[["a/1.jpg", "b/2.jpg"]]'
            )
        return tuple(map(tuple, pairs))

    @model_validator(mode="after")
    def _check(self) -> "Split":
        if isinstance(self.test, str):
            if self.test != CONSENSUS:
                raise ValueError(
                    f"test = {self.test!r} is neither a share of the photos nor {CONSENSUS!r}"
                )
            if self.fold is not None:
                raise ValueError(
                    f"fold = {self.fold} with test = {CONSENSUS!r}: folds test every photo once, "
                    f"{CONSENSUS!r} the photos that were voted on; choose one"
                )
        elif not 0 < self.test < 1:
            raise ValueError(f"test = {self.test} is no share of the photos between 0 and 1")
        elif self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} + test {self.test} leave nothing to train on; "
                "lower one of them"
            )
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold = {self.fold} is not below folds = {self.folds}; count from 0")
        return self


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Random changes of a training photo."""

    crop: Annotated[float, Field(ge=0, lt=1)]
    mirror: bool
    rotation: Annotated[float, Field(ge=0, le=180)]
    brightness: Share
    contrast: Share
    saturation: Share
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    flip: bool = False
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0


@dataclass(frozen=True, config=STRICT)
class Train:
    """How a network is fitted."""

    device: Name
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: Count
    patience: Count
    monitor: Literal[
        "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss",
        "mcc", "kappa", "roc_auc", "average_precision", "brier", "calibration_error",
    ]  # fmt: skip
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NotNegative
    augmentation: Augmentation
    processes: Count = 1
    channels_last: bool = True
    deterministic: bool = True
    accumulation: Count = 1
    optimizer: Name = "adamw"
    scheduler: Literal["cosine", "poly", "tanh", "wsd", "rsqrt", "multistep", "constant"] = "cosine"
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip_gradient: NotNegative = 0.0
    optimizer_arguments: dict[str, bool | int | float | str | tuple[float, ...]] = Field(
        default_factory=dict
    )
    loss: Literal["cross_entropy", "bce", "asymmetric", "poly"] = "cross_entropy"
    balance: Literal["none", "weights", "sampler"] = "weights"
    soft_labels: bool = False

    @field_validator("decay_at")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"{list(value)} does not ascend; write it in order, each share once")
        return value


@dataclass(frozen=True, config=STRICT)
class Model:
    """One variant: an architecture by its timm name, and how it is fitted."""

    architecture: Name
    image_size: Annotated[int, Field(ge=32, le=1024)]
    epochs: Annotated[int, Field(ge=0)]
    learning_rate: NotNegative
    pretrained: bool = False
    weights: Name | None = None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    frozen: bool = False
    last_blocks: Annotated[int, Field(ge=0)] = 0
    head_width: Annotated[int, Field(ge=0)] = 0
    head_epochs: Annotated[int, Field(ge=0)] = 0
    head_learning_rate: NotNegative = 0.0
    imagenet_head: bool = False
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_batch_norm: bool = False
    zero_shot: bool = False
    arguments: dict[str, int | float | str | bool | tuple[int, ...]] = Field(default_factory=dict)

    @property
    def head_alone(self) -> bool:
        """Return whether nothing but the head learns."""
        return self.frozen and not self.last_blocks

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError(
                "weights and weights_sha256 go together, so that changed weights rerun train; "
                "give both (`sha256sum FILE`) or neither"
            )
        if self.weights and not self.pretrained:
            raise ValueError("weights are given but pretrained is false; set pretrained: true")
        if self.frozen and not self.pretrained:
            raise ValueError("frozen keeps random weights, as pretrained is false; set it to true")
        if self.last_blocks and not self.frozen:
            raise ValueError(
                f"last_blocks = {self.last_blocks} learn beside a frozen rest, but frozen is "
                "false, so that all learns; set frozen: true, or leave last_blocks out"
            )
        if self.epochs and not self.learning_rate:
            raise ValueError("learning_rate = 0 learns nothing in any epoch; raise it")
        if self.zero_shot and (self.epochs or self.head_width or not self.pretrained):
            raise ValueError(
                "zero_shot takes a pretrained classifier as it is: set pretrained: true, "
                "epochs: 0 and no head_width"
            )
        return self

    @model_validator(mode="after")
    def _check_head(self) -> "Model":
        if bool(self.head_epochs) != bool(self.head_learning_rate):
            raise ValueError(
                f"head_epochs = {self.head_epochs} and head_learning_rate = "
                f"{self.head_learning_rate} go together; give both or neither"
            )
        if self.head_epochs and not (self.epochs and self.pretrained):
            raise ValueError(
                "head_epochs fit the head on pretrained features before epochs train the rest; "
                "set pretrained: true and epochs above 0, or leave head_epochs out"
            )
        if self.head_epochs and self.head_alone:
            raise ValueError(
                "head_epochs come before more than the head learns, but frozen is true, so that "
                "nothing more does; set frozen: false, or leave head_epochs out"
            )
        if self.imagenet_head and (self.zero_shot or self.head_width or not self.pretrained):
            raise ValueError(
                "imagenet_head starts a linear head from a pretrained classifier: set pretrained: "
                "true and neither zero_shot nor head_width, or leave imagenet_head out"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    """How the trained model is judged."""

    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    mistakes: Count
    explained: Count
    robustness: Annotated[int, Field(ge=0)]


def read(path: Path = PARAMS) -> dict[str, Any]:
    """Return the file's plain dict, read by the YAML 1.2 rules that DVC writes by.

    Raises:
        ValueError: The file is missing, does not parse or repeats a key.
    """
    try:
        # PyYAML reads 1e-4 as a string and `no` as False; DVC and YAML 1.2 do not.
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; run this in the project's top folder") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem).split())
        raise ValueError(f"{path}{where}: {problem}; mend the YAML there") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds no keys; restore it with `git checkout {path}`")
    return raw


def section(raw: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return the section at a dotted key as its dataclass.

    Raises:
        ValueError: The section is missing, or one of its keys is unknown, missing, of the wrong
            type or out of range; one line names key, value and remedy.
    """
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"params.yaml: {key} is missing; add it as README.md describes")
        value = value[part]
    try:
        # By way of JSON, so that lists become tuples while types stay strict.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(key, kind, e) for e in error.errors())) from None


def _explain(key: str, kind: type, error: Mapping[str, Any]) -> str:
    where = ".".join([key, *(str(part) for part in error["loc"])])
    if error["type"] == "unexpected_keyword_argument":
        known = [f.name for f in fields(kind)]
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"params.yaml: {where} = {error['input']!r} is an unknown key; {hint}"
    if error["type"] in {"missing", "missing_argument"}:
        return f"params.yaml: {where} is missing; add it with a value"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = "" if error["type"] == "value_error" else f" = {error['input']!r}"
    return f"params.yaml: {where}{value}: {message}; change it there"


def choice(raw: Mapping[str, Any], key: str, table: str, kind: type[T]) -> tuple[str, T]:
    """Return the name that a top-level key chooses, and its block in a table of blocks.

    Raises:
        ValueError: The table has no such block, or the block is wrong.
    """
    name = section(raw, key, str)
    known = raw.get(table)
    if not isinstance(known, Mapping) or name not in known:
        names = ", ".join(known) if isinstance(known, Mapping) else "none"
        raise ValueError(
            f"params.yaml: {key} = {name!r} is no block of {table}; choose one of: {names}"
        )
    return name, section(raw, f"{table}.{name}", kind)


def dataset(raw: Mapping[str, Any]) -> tuple[str, Dataset]:
    """Return the chosen dataset's name and block."""
    return choice(raw, "dataset", "datasets", Dataset)


SECTIONS: dict[str, type] = {
    "seed": int,
    "phantom": Phantom,
    "prepare": Prepare,
    "clean": Clean,
    "split": Split,
    "train": Train,
    "evaluate": Evaluate,
}
TABLES: dict[str, tuple[str, type]] = {
    "dataset": ("datasets", Dataset),
    "model": ("models", Model),
}


def check(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each fault in the whole file; an empty list means that it is sound."""
    faults: list[str] = []
    known = [*SECTIONS, *TABLES, *(table for table, _ in TABLES.values())]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            faults.append(f"params.yaml: {key} is an unknown key; {hint}")
    wanted: list[tuple[str, type]] = list(SECTIONS.items())
    for table, kind in TABLES.values():
        blocks = raw.get(table)
        wanted += [(f"{table}.{name}", kind) for name in blocks] if blocks else []
    for key, kind in wanted:
        try:
            section(raw, key, kind)
        except ValueError as error:
            faults.append(str(error))
    for key, (table, kind) in TABLES.items():
        try:
            name = section(raw, key, str)
            if name not in raw.get(table, {}):
                choice(raw, key, table, kind)
        except ValueError as error:
            faults.append(str(error))
    return faults


def missing_files(raw: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing on disk that the chosen dataset and model need and lack."""
    faults = []
    name, _ = dataset(raw)
    folder = Path("data/raw", name)
    if name != "phantom" and not folder.is_dir():
        faults.append(
            f"params.yaml: dataset = {name!r}: {folder} is not there; put or link the photos "
            "there, `dvc pull` them, or choose another dataset"
        )
    name, model = choice(raw, "model", "models", Model)
    if model.weights and not Path(model.weights).is_file():
        faults.append(
            f"params.yaml: model = {name!r}: its weights {model.weights} are not there; put the "
            "file there, `dvc pull` it, or choose another model"
        )
    return faults


def main() -> int:
    """Check params.yaml and say what is wrong with it."""
    try:
        raw = read()
        faults = check(raw) or missing_files(raw)
    except ValueError as error:
        faults = [str(error)]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    print(f"params.yaml is sound: dataset {raw['dataset']}, model {raw['model']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
