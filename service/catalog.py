"""The served bundles by name, and how the page and the API describe them."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import Request

from anklealign.inference.base_predictor import BasePredictor
from anklealign.io import results
from anklealign.models.description import CONFIG
from service.logs import log
from service.problems import ProblemError
from service.schemas import ExamplesResponse, ModelResponse, ModelSummary

PARAMETER = "model"  # of the query
NOTICE = "The prediction is a statistical estimate from a photo, and it can be wrong."
# Classes that a sentence names; of more, it has the number.
NAMED_CLASSES = 6


@dataclass(frozen=True)
class ServedModel:
    """A predictor with its name, its description and its example photos."""

    predictor: BasePredictor
    description: ModelResponse
    examples: ExamplesResponse


class Catalog:
    """The served models by name; the first is the default."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        """Store the models in their order."""
        self._models = dict(models)

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterate over the models, the default first."""
        return iter(self._models.values())

    @property
    def names(self) -> list[str]:
        """Return the names, the default first."""
        return list(self._models)

    @property
    def default(self) -> ServedModel:
        """Return the model of requests that name none."""
        return next(iter(self))

    def pick(self, request: Request) -> ServedModel:
        """Return the model that the query of a request names, or the default.

        Raises:
            ProblemError: No served model has this name.
        """
        name = request.query_params.get(PARAMETER)
        if name is None:
            return self.default
        if name not in self._models:
            raise ProblemError(
                "unknown_model", f"{name[:100]!r} is not served; choose: {', '.join(self._models)}"
            )
        return self._models[name]

    def summaries(self) -> list[ModelSummary]:
        """Return what GET /models lists."""
        return [
            ModelSummary(**model.description.model_dump(include=set(ModelSummary.model_fields)))
            for model in self
        ]

    def parameter(self) -> dict[str, Any]:
        """Return the OpenAPI description of the query parameter."""
        return {
            "parameters": [
                {
                    "name": PARAMETER,
                    "in": "query",
                    "description": f"Name of a served model; default {self.names[0]}.",
                    "schema": {"type": "string", "enum": self.names, "default": self.names[0]},
                }
            ]
        }


def serve_model(
    name: str, folder: Path, metrics: Path, predictor: BasePredictor, engine: str
) -> ServedModel:
    """Return a served model from its bundle and, if present, its scores and card.

    Args:
        name: Of the model in the API.
        folder: Of the bundle.
        metrics: Folder of details/evaluate.json and MODEL_CARD.md.
        predictor: The bundle's.
        engine: onnx or torch.

    Raises:
        ValueError: metrics/details/evaluate.json has other content than evaluate writes.
    """
    own = predictor.bundle
    digest = results.bundle_hash(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scores, card = evaluation_of(digest, metrics)
    record = dict(own.record)
    hashes = {"config_sha256": digest, "weights_sha256": config["anklealign"]["weights_sha256"]}
    hashes |= {key: record.pop(key) for key in sorted(record) if key.endswith("_sha256")}
    description = ModelResponse(
        name=name,
        model=digest[:12],
        **page_text(record, own.classes),
        classes=list(own.classes),
        engine=engine,
        device=predictor.device_name,
        preprocessing={
            "preparation": asdict(own.preprocessing),
            "input": asdict(own.input_config),
            "temperature": own.temperature,
            "class_bias": list(own.class_bias),
        },
        hashes=hashes,
        conformal_threshold=own.conformal_threshold,
        record=record,
        scores=scores,
        card=card,
    )
    return ServedModel(predictor, description, examples_of(own.examples, digest[:12]))


def page_text(record: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return title, description, notice and the classes' meanings of the dataset of a bundle.

    They are those of `page` in its dataset config; what is missing there follows from the names of
    the dataset and its classes.
    """
    params = record.get("params") or {}
    configured = (params.get("dataset") or {}).get("page") or {}
    name = str(params.get("dataset_name") or "Photo classifier")
    if len(classes) <= NAMED_CLASSES:
        listed = f"{', '.join(classes[:-1])} or {classes[-1]}"
    else:
        listed = f"one of {len(classes)} classes"
    meanings = configured.get("classes") or {}
    return {
        "title": configured.get("title") or (name[:1].upper() + name[1:]).replace("_", " "),
        "description": configured.get("description") or f"Classifies a photo as {listed}.",
        "notice": configured.get("notice") or NOTICE,
        "meanings": {name: meanings[name] for name in classes if name in meanings},
    }


def examples_of(examples: Mapping[str, Sequence[bytes]], model: str) -> ExamplesResponse:
    """Return the response of GET /examples from JPEG files."""
    photos = {
        name: [f"data:image/jpeg;base64,{base64.b64encode(p).decode('ascii')}" for p in own]
        for name, own in examples.items()
    }
    return ExamplesResponse(model=model, examples=photos)


def evaluation_of(digest: str, folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the scores and the model card of the bundle with this hash.

    A missing file, and one that belongs to another bundle, is None; the latter is logged.

    Raises:
        ValueError: The scores file has other content than evaluate writes.
    """
    scores_path, card_path = folder / "details/evaluate.json", folder / "MODEL_CARD.md"
    scores = results.read_details(scores_path) if scores_path.is_file() else None
    card = card_path.read_text(encoding="utf-8") if card_path.is_file() else None
    if scores is not None and scores.get(results.BUNDLE) != digest:
        log.warning("%s belongs to another bundle and is not shown", scores_path)
        scores = None
    if scores is not None:
        scores = aggregates(scores)
    if card is not None and digest not in card:
        log.warning("%s belongs to another bundle and is not shown", card_path)
        card = None
    return scores, card


def aggregates(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores without those of single annotators and collectors."""
    return {
        key: {
            name: score
            for name, score in value.items()
            if not name.startswith(("by_annotator", "collector"))
        }
        if isinstance(value, dict)
        else value
        for key, value in scores.items()
    }
