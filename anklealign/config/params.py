"""Typed and strict parameters of params.yaml: an unknown key is an error.

A stage reads only the sections that dvc.yaml declares for it, so that no other parameter can change
its result:

    raw = params.read()
    settings = params.section(raw, "prepare", Prepare)
    name, dataset = params.dataset(raw)
"""

import difflib
import json
import re
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
from anklealign.config.paths import RAW

PARAMS = Path("params.yaml")
CONSENSUS = "consensus"  # value of split.test: test on the photos with votes
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
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
class OperatingTarget:
    """The class that counts as positive, and one goal of the decision for it.

    `cost_ratio` is the cost of a missed positive photo divided by that of a false alarm.
    """

    positive: Name
    sensitivity: Annotated[float, Field(gt=0, lt=1)] | None = None
    specificity: Annotated[float, Field(gt=0, lt=1)] | None = None
    cost_ratio: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "OperatingTarget":
        goals = (self.sensitivity, self.specificity, self.cost_ratio)
        if sum(goal is not None for goal in goals) != 1:
            raise ValueError("give one of sensitivity, specificity and cost_ratio")
        return self


@dataclass(frozen=True, config=STRICT)
class LabelReliability:
    """A published measure of how reliable the labels of such photos are, and where it is from."""

    measure: Name
    value: Annotated[float, Field(ge=-1, le=1)]
    source: Name


@dataclass(frozen=True, config=STRICT)
class Page:
    """What the service's page shows of a dataset; the bundle carries it.

    `title` and `description` stand at the top, `notice` at the bottom, and `classes` says what a
    class means. `examples` photos of each class become part of the bundle, and with it public
    wherever the bundle or the page is: 0 unless everyone may see photos of the dataset.
    """

    title: Name | None = None
    description: Name | None = None
    notice: Name | None = None
    classes: dict[Name, Name] | None = None
    examples: Annotated[int, Field(ge=0, le=6)] = 0


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """A dataset below data/raw: its layout and the meaning of its labels.

    `subject_pattern` is a regular expression that is searched in each photo's path, ignoring case
    and, if needed, accents; the digits of its group `subject` identify the subject among those of
    the collector. `class_roots` are the folders that hold class folders, each with its predefined
    split or ''; without them, class folders lie at the top or below train, val and test.
    `label_pattern` belongs to the file_names layout: its group `label` is the label of a photo.

    `csv` (one or several tables), `encoding` and the columns belong to the table layout, where
    `group_column` is the subject and `split_column` the predefined split. Labels are in
    `label_column`, unless it is null; in one column per class (`one_hot`); or votes, in one column
    per annotator (`vote_columns`) or in several rows per photo (`annotator_column`). A column is
    named `#1`, `#2`, ... in tables without a header. In any layout, `extra_csv` maps further tables
    to their column of paths: `group_column` and `split_column` are columns of them, or of `csv`.
    `imagenet` maps each class to ImageNet classes. `split_lists` (train.txt, test.txt) have the
    path of a photo in each line, and give it the predefined split that the list is named after, in
    any layout. `operating_point` chooses the threshold of one class on validation.
    `label_reliability` is a published agreement of labels of such photos, which the report shows
    beside the scores. `label_level` is the level of nested answers (Taxonomy, nested Choices) in
    the label_studio layout that is the label: 1 is the topmost, None the last. `page` is text for
    the service's page, and whether it may show photos of the dataset.
    """

    layout: Literal["folders", "file_names", "label_studio", "table"]
    classes: Annotated[dict[Name, tuple[str, ...]], Field(min_length=2)]
    subject_pattern: str | None = None
    ordered: bool = False
    mirror_safe: bool = True
    fit: Fit = "letterbox"
    class_roots: dict[str, Literal["", "train", "val", "test"]] | None = None
    label_pattern: str | None = None
    csv: Name | Annotated[tuple[Name, ...], Field(min_length=1)] = "labels.csv"
    encoding: Name = "utf-8"
    path_column: Name = "path"
    label_column: Name | None = "label"
    one_hot: bool = False
    vote_columns: Annotated[tuple[Name, ...], Field(min_length=2)] | None = None
    annotator_column: Name | None = None
    group_column: Name | None = None
    label_level: Count | None = None
    split_column: Name | None = None
    extra_csv: Annotated[dict[Name, Name], Field(min_length=1)] | None = None
    split_lists: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    imagenet: dict[Name, Annotated[tuple[ImageNetIndex, ...], Field(min_length=1)]] | None = None
    operating_point: OperatingTarget | None = None
    label_reliability: LabelReliability | None = None
    page: Page | None = None

    def imagenet_indices(self) -> tuple[tuple[int, ...], ...]:
        """Return the sorted ImageNet indices of each class, or () without a mapping."""
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
            mapped = [i for indices in self.imagenet_indices() for i in indices]
            twice = sorted({i for i in mapped if mapped.count(i) > 1})
            if twice:
                raise ValueError(
                    f"imagenet: {twice[0]} is listed twice; map each ImageNet class to one class"
                )
        unknown = [
            name for name in (self.page and self.page.classes) or () if name not in self.classes
        ]
        if unknown:
            raise ValueError(
                f"page.classes: {unknown[0]!r} is not a class; choose among: "
                f"{', '.join(self.classes)}"
            )
        if self.operating_point and self.operating_point.positive not in self.classes:
            raise ValueError(
                f"operating_point.positive = {self.operating_point.positive!r} is not a class; "
                f"choose one of: {', '.join(self.classes)}"
            )
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(
                f"encoding: {self.encoding!r} is not an encoding that Python knows; write utf-8, "
                "utf-16, cp1250, cp1252, …"
            ) from None
        for key, group in (("subject_pattern", "subject"), ("label_pattern", "label")):
            _check_pattern(key, getattr(self, key), group)
        Labels(self.classes)  # raises if two classes share an alias
        return self

    @model_validator(mode="after")
    def _check_layout(self) -> "Dataset":
        if (self.layout == "file_names") != (self.label_pattern is not None):
            raise ValueError(
                "layout file_names and label_pattern belong together; give both or neither"
            )
        if self.layout != "table":
            for key in ("group_column", "split_column"):
                if getattr(self, key) is not None and not self.extra_csv:
                    raise ValueError(
                        f"{key}: {getattr(self, key)!r} is a column of a table, and layout "
                        f"{self.layout} has none; name the table in extra_csv, or remove {key}"
                    )
            return self
        if self.one_hot and (self.vote_columns or self.annotator_column):
            raise ValueError("one_hot tables have no votes; remove vote_columns, annotator_column")
        if self.vote_columns and self.annotator_column:
            raise ValueError(
                "vote_columns (one column per annotator) and annotator_column (one row per vote) "
                "exclude each other; remove one"
            )
        if self.label_column is None and not (self.one_hot or self.vote_columns):
            raise ValueError(
                "label_column: null leaves no label; name a column, or set one_hot or vote_columns"
            )
        return self


def _check_pattern(key: str, text: str | None, group: str) -> None:
    """Check that a regular expression compiles and has a named group."""
    if text is None:
        return
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"{key}: {text!r} is not a regular expression: {error}") from None
    if group not in pattern.groupindex:
        raise ValueError(
            f"{key}: {text!r} has no group named {group}; write the part that identifies the "
            f"{group} as (?P<{group}>…)"
        )


def _indices(entries: tuple[int | str, ...]) -> list[int]:
    indices: list[int] = []
    for entry in entries:
        first, _, last = str(entry).partition("-")
        indices += range(int(first), int(last or first) + 1)
    return indices


@dataclass(frozen=True, config=STRICT)
class Synthetic:
    """Parameters of the synthetic dataset."""

    seed: Annotated[int, Field(ge=0)]
    photos: Annotated[int, Field(ge=30)]
    collectors: Count
    difficulty: NonNegative
    corruptions: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Prepare:
    """Parameters of the prepare stage."""

    size: Annotated[int, Field(ge=32, le=1024)]
    fill: Byte
    # Pillow rejects 178.96 MP and more.
    max_megapixels: Annotated[float, Field(gt=0, le=178)]
    consensus: Literal["majority", "dawid_skene"] = "majority"


Action = Literal["remove", "flag", "off"]


@dataclass(frozen=True, config=STRICT)
class QualityActions:
    """What clean does with the photos that a quality reason applies to.

    `flag` keeps them, and lists and shows them; `off` does not consider the reason.
    """

    too_small: Action = "flag"  # size does not tell whether a photo is usable
    aspect: Action = "remove"
    dark: Action = "remove"
    bright: Action = "remove"
    low_contrast: Action = "remove"
    blurred: Action = "remove"


@dataclass(frozen=True, config=STRICT)
class Clean:
    """Thresholds for removing duplicates and photos of poor quality before the split."""

    hash_distance: Annotated[int, Field(ge=0, le=16)]
    residual: Fraction
    too_small: NonNegative
    aspect: Annotated[float, Field(ge=1)]
    dark: Annotated[float, Field(ge=0, le=255)]
    bright: Annotated[float, Field(ge=0, le=255)]
    low_contrast: Annotated[float, Field(ge=0, le=255)]
    blurred: NonNegative
    near_duplicates: Literal["remove", "group"] = "remove"
    actions: QualityActions = Field(default_factory=QualityActions)
    allowed_losses: tuple[Name, ...] = ()  # collectors that may lose all their photos


@dataclass(frozen=True, config=STRICT)
class Split:
    """Parameters of the split: no group spans two splits."""

    val: Annotated[float, Field(gt=0, lt=1)]
    test: float | str
    group: Literal["subject", "collector"]
    predefined: Literal["keep", "exclude_leaks", "ignore"]
    folds: Annotated[int, Field(ge=3)]  # one for test, one for validation, the rest for training
    fold: Annotated[int, Field(ge=0)] | None
    leakage_residual: Fraction
    leakage_correlation: Annotated[float, Field(gt=0, le=1)]
    allowed_leaks: tuple[tuple[Name, Name], ...]

    @field_validator("allowed_leaks", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        pairs = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise ValueError(
                f"{value!r} is not a list of pairs of paths; write each allowed pair as in "
                '[["a/1.jpg", "b/2.jpg"]]'
            )
        return tuple(map(tuple, pairs))

    @model_validator(mode="after")
    def _check(self) -> "Split":
        if isinstance(self.test, str):
            if self.test != CONSENSUS:
                raise ValueError(
                    f"test = {self.test!r} is neither a fraction of the photos nor {CONSENSUS!r}"
                )
            if self.fold is not None:
                raise ValueError(
                    f"fold = {self.fold} with test = {CONSENSUS!r}: folds test every photo once, "
                    f"{CONSENSUS!r} tests only the photos with votes; choose one"
                )
        elif not 0 < self.test < 1:
            raise ValueError(f"test = {self.test} is not a fraction between 0 and 1")
        elif self.val + self.test >= 1:
            raise ValueError(
                f"val = {self.val} and test = {self.test} leave no photos for training; lower one"
            )
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold = {self.fold} is not below folds = {self.folds}; count from 0")
        return self


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Random transforms of a training photo."""

    random_crop: Annotated[float, Field(ge=0, lt=1)]
    horizontal_flip: bool
    rotation: Annotated[float, Field(ge=0, le=180)]
    brightness: Fraction
    contrast: Fraction
    saturation: Fraction
    translate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    vertical_flip: bool = False
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0


@dataclass(frozen=True, config=STRICT)
class Train:
    """Parameters of training."""

    device: Name
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    batch_size: Count
    patience: Count
    monitor: Literal[
        "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss",
        "mcc", "kappa", "two_step_errors", "roc_auc", "average_precision", "brier", "rps",
        "calibration_error",
    ]  # fmt: skip
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    augmentation: Augmentation
    seed: Annotated[int, Field(ge=0)] | None = None
    repeats: Count = 1
    num_processes: Count = 1
    threads: Count = 2
    channels_last: bool = True
    deterministic: bool = True
    gradient_accumulation_steps: Count = 1
    optimizer: Name = "adamw"
    scheduler: Literal["cosine", "poly", "multistep", "constant"] = "cosine"
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_grad_norm: NonNegative = 0.0
    optimizer_arguments: dict[str, bool | int | float | str | tuple[float, ...]] = Field(
        default_factory=dict
    )
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    class_balancing: Literal["none", "loss_weights", "sampler"] = "loss_weights"
    soft_labels: bool = False
    false_refusals: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @field_validator("decay_at")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"{list(value)} is not strictly ascending; sort it and remove repeats")
        return value


@dataclass(frozen=True, config=STRICT)
class Model:
    """A model config: an architecture by its timm name, and its training parameters."""

    architecture: Name
    image_size: Annotated[int, Field(ge=32, le=1024)]
    epochs: Annotated[int, Field(ge=0)]
    learning_rate: NonNegative
    pretrained: bool = False
    weights: Name | None = None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")] | None = None
    frozen: bool = False
    unfreeze_last_n: Annotated[int, Field(ge=0)] = 0
    head_hidden_dim: Annotated[int, Field(ge=0)] = 0
    head_hidden_layers: Annotated[int, Field(ge=1, le=2)] = 1
    head_drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ordinal_head: bool = False
    logistic_regression: bool = False
    head_epochs: Annotated[int, Field(ge=0)] = 0
    head_learning_rate: NonNegative = 0.0
    imagenet_head: bool = False
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_batch_norm: bool = False
    zero_shot: bool = False
    arguments: dict[str, int | float | str | bool | tuple[int, ...]] = Field(default_factory=dict)

    @property
    def head_alone(self) -> bool:
        """Return whether only the head is trained."""
        return self.frozen and not self.unfreeze_last_n

    @property
    def new_head(self) -> bool:
        """Return whether the head is more than one linear layer."""
        return bool(self.head_hidden_dim or self.head_drop_rate or self.ordinal_head)

    @property
    def fitted(self) -> bool:
        """Return whether weights are fitted to the training photos."""
        return bool(self.epochs or self.logistic_regression)

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if (self.weights is None) != (self.weights_sha256 is None):
            raise ValueError(
                "weights and weights_sha256 belong together, so that changed weights rerun train; "
                "give both (`sha256sum FILE`) or neither"
            )
        if self.weights and not self.pretrained:
            raise ValueError("weights is set but pretrained is false; set pretrained: true")
        if self.frozen and not self.pretrained:
            raise ValueError(
                "frozen would keep random weights because pretrained is false; set pretrained: true"
            )
        if self.unfreeze_last_n and not self.frozen:
            raise ValueError(
                f"unfreeze_last_n = {self.unfreeze_last_n} has no effect as frozen is false and "
                "all weights are trained; set frozen: true, or remove unfreeze_last_n"
            )
        if self.epochs and not self.learning_rate:
            raise ValueError("learning_rate = 0 trains nothing; raise it, or set epochs: 0")
        if self.zero_shot and (self.fitted or self.new_head or not self.pretrained):
            raise ValueError(
                "zero_shot uses a pretrained classifier without training: set pretrained: true and "
                "epochs: 0, and remove logistic_regression, head_hidden_dim, head_drop_rate and "
                "ordinal_head"
            )
        return self

    @model_validator(mode="after")
    def _check_head(self) -> "Model":
        if bool(self.head_epochs) != bool(self.head_learning_rate):
            raise ValueError(
                f"head_epochs = {self.head_epochs} and head_learning_rate = "
                f"{self.head_learning_rate} belong together; give both or neither"
            )
        if self.head_epochs and not (self.epochs and self.pretrained):
            raise ValueError(
                "head_epochs fits the head on pretrained features before fine-tuning; "
                "set pretrained: true and epochs above 0, or remove head_epochs"
            )
        if self.head_epochs and self.head_alone:
            raise ValueError(
                "head_epochs precedes fine-tuning, but frozen is true: only the head is trained; "
                "set frozen: false, or remove head_epochs"
            )
        if self.imagenet_head and (self.zero_shot or self.new_head or not self.pretrained):
            raise ValueError(
                "imagenet_head initializes a linear head from a pretrained classifier: set "
                "pretrained: true and remove zero_shot, head_hidden_dim, head_drop_rate and "
                "ordinal_head, or remove imagenet_head"
            )
        return self

    @model_validator(mode="after")
    def _check_logistic_regression(self) -> "Model":
        if not self.logistic_regression:
            return self
        if self.head_epochs or self.new_head or not self.pretrained:
            raise ValueError(
                "logistic_regression fits one linear layer on pretrained features: set "
                "pretrained: true and remove head_epochs, head_hidden_dim, head_drop_rate and "
                "ordinal_head, or remove logistic_regression"
            )
        if self.head_alone == bool(self.epochs):
            raise ValueError(
                f"logistic_regression with epochs = {self.epochs} and frozen = "
                f"{str(self.frozen).lower()}: a frozen backbone needs no epochs after it, and "
                "others need some; set epochs: 0 with frozen: true, or both otherwise"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class Auto:
    """A choice among model configs by cross-validation on the training photos."""

    budget: Count
    candidates: Annotated[dict[Name, Model], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Evaluate:
    """Parameters of the evaluation."""

    bootstrap: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    mistakes: Count
    explained: Count
    robustness: Annotated[int, Field(ge=0)]
    learning_curve: Annotated[int, Field(ge=0)] = 3
    pseudonyms: Literal["auto", "all", "none"] = "auto"


@dataclass(frozen=True, config=STRICT)
class Execution:
    """Where stages run shards; no result depends on it, and no stage of dvc.yaml names it."""

    backend: Literal["local", "ray"] = "local"
    gpus: NonNegative = 1.0


# Keys of earlier releases: old dotted key -> new dotted key. `*` is any dataset or model.
RENAMED = {
    "phantom": "synthetic",
    "synthetic.planted": "synthetic.corruptions",
    "datasets.phantom": "datasets.synthetic",
    "datasets.*.person": "datasets.*.subject_pattern",
    "split.validation": "split.val",
    "split.given": "split.predefined",
    "split.accept_leaks": "split.allowed_leaks",
    "split.leak_residual": "split.leakage_residual",
    "split.leak_correlation": "split.leakage_correlation",
    "train.processes": "train.num_processes",
    "train.accumulation": "train.gradient_accumulation_steps",
    "train.clip_gradient": "train.max_grad_norm",
    "train.balance": "train.class_balancing",
    "train.augmentation.crop": "train.augmentation.random_crop",
    "train.augmentation.shift": "train.augmentation.translate",
    "train.augmentation.mirror": "train.augmentation.horizontal_flip",
    "train.augmentation.flip": "train.augmentation.vertical_flip",
    "models.gap_cnn": "models.grid_pool_cnn",
    "models.*.last_blocks": "models.*.unfreeze_last_n",
    "models.*.head_width": "models.*.head_hidden_dim",
}
# Values of earlier releases: (dotted key, old value) -> new value, or the closest one that remains.
RENAMED_VALUES = {
    ("dataset", "phantom"): "synthetic",
    ("model", "gap_cnn"): "grid_pool_cnn",
    ("split.group", "person"): "subject",
    ("train.class_balancing", "weights"): "loss_weights",
}
REMOVED_VALUES = {
    ("train.loss", "asymmetric"): "bce",
    ("train.loss", "poly"): "cross_entropy",
    ("train.scheduler", "tanh"): "cosine",
    ("train.scheduler", "wsd"): "cosine",
    ("train.scheduler", "rsqrt"): "cosine",
}


def read(path: Path = PARAMS) -> dict[str, Any]:
    """Return the content of params.yaml as a dict, parsed as YAML 1.2 like DVC does.

    Raises:
        ValueError: The file is missing, does not parse or repeats a key.
    """
    try:
        # PyYAML reads 1e-4 as a string and `no` as False; DVC and YAML 1.2 do not.
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; run this in the root folder of the project"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(error.problem).split())
        raise ValueError(f"{path}{where}: {problem}; fix the syntax at that line") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} has no keys; restore it with `git checkout {path}`")
    return raw


def section(raw: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return the section at a dotted key as its dataclass.

    Raises:
        ValueError: The section is missing, or one of its keys is renamed, unknown, missing, of the
            wrong type or out of range; one line names the key, the value and the remedy.
    """
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            for old, new in RENAMED.items():
                if new == key and isinstance(value, Mapping) and old.split(".")[-1] in value:
                    raise ValueError(f"params.yaml: {old} was renamed to {new}; rename the key")
            raise ValueError(
                f"params.yaml: {key} is missing; add it as in `git show HEAD:params.yaml`"
            )
        value = value[part]
    if outdated := _outdated(key, value):
        raise ValueError("; ".join(outdated))
    try:
        # Via JSON, so that lists become tuples while types stay strict.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(key, kind, e) for e in error.errors())) from None


def _outdated(key: str, value: object) -> list[str]:
    """Return one line for each key or value of an earlier release at or below a dotted key."""
    if not isinstance(value, Mapping):
        named = f"params.yaml: {key} = {value!r}"
        if new := RENAMED_VALUES.get((key, str(value))):
            return [f"{named} was renamed to {new}; change the value"]
        if new := REMOVED_VALUES.get((key, str(value))):
            return [f"{named} was removed; use {new}"]
        return []
    lines: list[str] = []
    for name, child in value.items():
        path = f"{key}.{name}"
        if new := _new_key(path):
            lines.append(f"params.yaml: {path} was renamed to {new}; rename the key")
        else:
            lines += _outdated(path, child)
    return lines


def _new_key(path: str) -> str:
    """Return the new name of a dotted key of an earlier release, or ''."""
    table, *names = path.split(".")
    anywhere = ".".join([table, "*", *names[1:]])
    return RENAMED.get(path, "") or RENAMED.get(anywhere, "").replace("*", "".join(names[:1]))


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


def selected(raw: Mapping[str, Any], key: str, table: str, kind: type[T]) -> tuple[str, T]:
    """Return the value of a top-level key, and the config of that name in a table.

    Raises:
        ValueError: The table has no config of that name, or the config is invalid.
    """
    name = section(raw, key, str)
    configs = raw.get(table)
    if not isinstance(configs, Mapping) or name not in configs:
        names = ", ".join(configs) if isinstance(configs, Mapping) else "none"
        raise ValueError(
            f"params.yaml: {key} = {name!r} is not a key of {table}; choose one of: {names}"
        )
    return name, section(raw, f"{table}.{name}", kind)


def model(raw: Mapping[str, Any]) -> tuple[str, Model | Auto]:
    """Return the name and the config of the selected model."""
    name = section(raw, "model", str)
    kind = _model_kind(raw.get("models"), name)
    return selected(raw, "model", "models", kind)


def models(raw: Mapping[str, Any]) -> dict[str, Model]:
    """Return the selected model config, or the candidates of `auto`, by its key below `models`.

    Candidates that need ImageNet's classes are left out where the dataset has none.
    """
    name, config = model(raw)
    if isinstance(config, Model):
        return {name: config}
    mapped = bool(dataset(raw)[1].imagenet)
    return {
        f"{name}.candidates.{candidate}": value
        for candidate, value in config.candidates.items()
        if mapped or not value.zero_shot
    }


def _model_kind(configs: object, name: str) -> type[Model] | type[Auto]:
    config = configs.get(name) if isinstance(configs, Mapping) else None
    return Auto if isinstance(config, Mapping) and "candidates" in config else Model


def dataset(raw: Mapping[str, Any]) -> tuple[str, Dataset]:
    """Return the name and the config of the selected dataset."""
    return selected(raw, "dataset", "datasets", Dataset)


def execution(raw: Mapping[str, Any]) -> Execution:
    """Return where stages run shards: on this machine, if the file does not say."""
    return section({"execution": {}} | dict(raw), "execution", Execution)


SECTIONS: dict[str, type] = {
    "seed": int,
    "synthetic": Synthetic,
    "prepare": Prepare,
    "clean": Clean,
    "split": Split,
    "train": Train,
    "evaluate": Evaluate,
    "execution": Execution,
}
TABLES: dict[str, tuple[str, type]] = {
    "dataset": ("datasets", Dataset),
    "model": ("models", Model),
}


def check(raw: Mapping[str, Any]) -> list[str]:
    """Return one line per error in the whole file; an empty list means that it is valid."""
    raw = {"execution": {}} | dict(raw)
    errors = _unknown_sections(raw)
    sections: list[tuple[str, type]] = list(SECTIONS.items())
    for table, kind in TABLES.values():
        for name in raw.get(table) or ():
            path = f"{table}.{name}"
            if new := RENAMED.get(path):
                errors.append(f"params.yaml: {path} was renamed to {new}; rename the key")
            sections.append((path, _model_kind(raw[table], name) if kind is Model else kind))
    for key, kind in sections:
        try:
            section(raw, key, kind)
        except ValueError as error:
            errors.append(str(error))
    for key, (table, kind) in TABLES.items():
        try:
            name = section(raw, key, str)
            if name not in raw.get(table, {}):
                selected(raw, key, table, kind)
        except ValueError as error:
            errors.append(str(error))
    return errors


def _unknown_sections(raw: Mapping[str, Any]) -> list[str]:
    errors = []
    known = [*SECTIONS, *TABLES, *(table for table, _ in TABLES.values())]
    for key in raw:
        if key not in known and key not in RENAMED:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            errors.append(f"params.yaml: {key} is an unknown key; {hint}")
    return errors


def input_errors(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each input of the selected dataset and model that a stage would refuse.

    The stages before train take minutes, so what train refuses is refused before them; pretrained
    weights are checked by `anklealign.models.weights`.
    """
    dataset_name, data = dataset(raw)
    folder = RAW / dataset_name
    errors = []
    if dataset_name != "synthetic" and not folder.is_dir():
        errors.append(
            f"params.yaml: dataset = {dataset_name!r}: {folder} does not exist; put or link the "
            "photos there, run `dvc pull`, or choose another dataset"
        )
    for name, config in models(raw).items():
        if config.zero_shot and not data.imagenet:
            errors.append(
                f"params.yaml: models.{name}: zero_shot needs the ImageNet indices of each class, "
                f"which datasets.{dataset_name} does not have; add "
                f"datasets.{dataset_name}.imagenet, or choose another model"
            )
        if config.ordinal_head and not data.ordered:
            errors.append(
                f"params.yaml: models.{name}: ordinal_head needs classes that lie on a scale, but "
                f"datasets.{dataset_name}.ordered is false; set it to true if they do, or remove "
                "ordinal_head"
            )
    return errors
