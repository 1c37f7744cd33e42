"""Routes of the API: predictions, heat maps, model description, health and metrics."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from anklealign.inference.predictor import OpenedPhoto, Predictor
from anklealign.io import results
from anklealign.models import bundle, calibration
from anklealign.models.inputs import Floats
from anklealign.plotting import heat_maps
from service import heatmaps, problems
from service.batcher import Batcher
from service.observability import Metrics, log
from service.problems import ProblemError, openapi_responses
from service.schemas import (
    ExplainResponse,
    HealthResponse,
    ModelResponse,
    Prediction,
    PredictResponse,
)
from service.settings import ServiceSettings
from service.uploads import FIELD, UploadReader

PNG, JSON = heatmaps.PNG, "application/json"
UPLOAD_PROBLEMS = (
    "no_file", "wrong_field", "bad_form", "bad_request", "upload_too_slow", "upload_too_large",
    "too_many_files", "too_large", "wrong_type", "not_an_image", "zero_bytes", "truncated",
    "unreadable", "unsupported", "camera_raw", "too_slow", "decoder_crashed", "busy",
)  # fmt: skip


class PhotoHandler:
    """Handles uploads and builds responses."""

    def __init__(
        self, settings: ServiceSettings, model: ModelResponse, batcher: Batcher, metrics: Metrics
    ) -> None:
        """Store the shared objects and create the upload reader."""
        self.model = model
        self._batcher = batcher
        self._metrics = metrics
        self._uploads = UploadReader(settings)
        self._refuses_unlike = settings.unlike == "refuse"

    async def classify(
        self, request: Request, max_files: int
    ) -> tuple[list[OpenedPhoto], Floats, Floats]:
        """Return a request's N decoded photos, (N, K) probabilities and (N,) novelty scores.

        Raises:
            ProblemError: The upload is invalid, a photo is unreadable, or the queue is full.
        """
        self._batcher.check_capacity()
        async with self._uploads.photos(request) as photos:
            if len(photos) > max_files:
                detail = f"the request contains {len(photos)} photos; the maximum is {max_files}"
                raise ProblemError("too_many_files", detail)
            opened, probabilities, novelty = await self._batcher.classify(
                photos, request.is_disconnected
            )
        refused = self._refused(novelty)
        best = probabilities.argmax(1)
        predicted = [self.model.classes[k] for k in best[~refused]]
        request.state.log_fields |= {"photos": len(opened), "predicted": predicted}
        for name in predicted:
            self._metrics.photos.labels(name).inc()
        return opened, probabilities, novelty

    def _refused(self, novelty: Floats) -> npt.NDArray[np.bool_]:
        """Return whether photos get no class, from their novelty scores: (N,) -> (N,)."""
        return ~self._batcher.predictor.in_distribution(novelty) & self._refuses_unlike

    def predictions(
        self, opened: list[OpenedPhoto], probabilities: Floats, novelty: Floats
    ) -> list[Prediction]:
        """Return the predictions for N photos: (N, K) probabilities and (N,) novelty scores."""
        predictor = self._batcher.predictor
        similar, refused = predictor.in_distribution(novelty), self._refused(novelty)
        sets = predictor.prediction_sets(probabilities)
        sets[refused] = True
        self._metrics.unlike.inc(int((~similar).sum()))
        abstained = calibration.abstains(sets)
        self._metrics.abstained.inc(int(abstained.sum()))
        classes = self.model.classes
        return [
            Prediction(
                predicted=None if refuse else classes[int(row.argmax())],
                probabilities=dict(zip(classes, row.tolist(), strict=True)),
                prediction_set=[
                    name for name, included in zip(classes, row_set, strict=True) if included
                ],
                abstain=bool(abstain),
                in_distribution=bool(known),
                novelty=None if np.isnan(score) else float(score),
                width=photo.width,
                height=photo.height,
            )
            for photo, row, row_set, abstain, known, score, refuse in zip(
                opened, probabilities, sets, abstained, similar, novelty, refused, strict=True
            )
        ]

    async def explain(
        self, photo: OpenedPhoto, probabilities: Floats, novelty: Floats, media_type: str
    ) -> Response:
        """Return the heat map of the most probable class of one photo as PNG or JSON.

        Args:
            photo: The photo.
            probabilities: (1, K).
            novelty: (1,).
            media_type: Of the response.

        Raises:
            ProblemError: The queue is full.
        """
        predictor, predicted = self._batcher.predictor, int(probabilities[0].argmax())
        seen, heat = await self._batcher.run_exclusive(
            lambda: heatmaps.compute(predictor, photo, predicted)
        )
        if media_type == PNG:
            return Response(heatmaps.encode_png(heat_maps.overlay(seen, heat)), media_type=PNG)
        explanation = ExplainResponse(
            model=self.model.model,
            prediction=self.predictions([photo], probabilities, novelty)[0],
            seen=heatmaps.data_url(heatmaps.encode_png(seen)),
            heat_map=heatmaps.data_url(heatmaps.encode_png(heatmaps.to_rgba(heat))),
        )
        return Response(explanation.model_dump_json(), media_type=JSON)


def photo_routes(handler: PhotoHandler, settings: ServiceSettings) -> APIRouter:
    """Return the routes that accept photos."""
    router = APIRouter()

    @router.post(
        "/predict",
        summary="Classify photos",
        response_model=PredictResponse,
        openapi_extra=upload_schema(settings.max_files),
        responses=openapi_responses(*UPLOAD_PROBLEMS),
    )
    async def predict(request: Request) -> Response:
        """Classify one photo, sent as the request body, or one or more form fields named `file`.

        If any photo is unreadable, the whole request fails; `photo` in the problem details is the
        position of that photo.
        """
        response = PredictResponse(
            model=handler.model.model,
            predictions=handler.predictions(*await handler.classify(request, settings.max_files)),
        )
        # Serialize directly: FastAPI would validate and copy the model again on every request.
        return Response(response.model_dump_json(), media_type=JSON)

    @router.post(
        "/explain",
        summary="Explain the prediction for a photo",
        response_model=ExplainResponse,
        openapi_extra=upload_schema(1),
        responses=openapi_responses(*UPLOAD_PROBLEMS, "not_acceptable")
        | {200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def explain(request: Request) -> Response:
        """Return the heat map over the photo as PNG, or JSON with `Accept: application/json`.

        The JSON response contains the prediction, the photo as the model receives it, and the
        heat map as a separate image.
        """
        media_type = negotiate(request.headers.get("accept", "*/*"))
        (photo,), probabilities, novelty = await handler.classify(request, 1)
        return await handler.explain(photo, probabilities, novelty, media_type)

    return router


def status_routes(model: ModelResponse, batcher: Batcher, metrics: Metrics) -> APIRouter:
    """Return the routes that describe the model and the state of the service."""
    router = APIRouter()

    @router.get("/model", summary="Describe the model")
    async def describe() -> ModelResponse:
        """Return the classes, preprocessing, hashes, scores and model card of the model."""
        return model

    @router.get("/health/live", summary="Liveness probe")
    async def live() -> HealthResponse:
        """Return immediately, independent of the load."""
        return HealthResponse(status="ok")

    @router.get("/health/ready", summary="Readiness probe", responses=openapi_responses("busy"))
    async def ready() -> HealthResponse:
        """Return 503 if the network or a decoder is stuck, or if no decoder can be started."""
        if problem := await batcher.problem():
            raise problems.busy(problem)
        return HealthResponse(status="ok")

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def scrape() -> Response:
        """Return all metrics in the Prometheus text format."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def describe_model(predictor: Predictor, engine: str, settings: ServiceSettings) -> ModelResponse:
    """Return the response of GET /model from the bundle and, if present, its scores and card.

    Raises:
        ValueError: metrics/details/evaluate.json has other content than evaluate writes.
    """
    own = predictor.bundle
    digest = results.bundle_hash(settings.model)
    config = json.loads((settings.model / bundle.CONFIG).read_text(encoding="utf-8"))
    scores, card = evaluation_of(digest, settings.metrics)
    record = dict(own.record)
    hashes = {"config_sha256": digest, "weights_sha256": config["anklealign"]["weights_sha256"]}
    hashes |= {key: record.pop(key) for key in sorted(record) if key.endswith("_sha256")}
    return ModelResponse(
        model=digest[:12],
        classes=list(own.classes),
        engine=engine,
        device=str(predictor.device),
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


def upload_schema(max_files: int) -> dict[str, Any]:
    """Return the OpenAPI request body of an operation that accepts up to `max_files` photos."""
    photo = {"type": "string", "format": "binary"}
    several = {"type": "array", "items": photo, "minItems": 1, "maxItems": max_files}
    field = several if max_files > 1 else photo
    form = {
        "type": "object",
        "properties": {FIELD: field},
        "required": [FIELD],
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    for media_type in (
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/heic",
        "application/octet-stream",
    ):
        content[media_type] = {"schema": photo}
    return {"requestBody": {"required": True, "content": content}}


def negotiate(accept: str) -> str:
    """Return the media type preferred by an Accept header (RFC 9110, section 12.5.1).

    PNG wins if PNG and JSON have the same quality.

    Raises:
        ProblemError: The header accepts neither PNG nor JSON.
    """
    best, best_quality = "", 0.0
    qualities: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            qualities[name] = float(weight)
        except ValueError:
            qualities[name] = 0.0
    for media_type in (PNG, JSON):
        ranges = (media_type, media_type.split("/")[0] + "/*", "*/*")
        quality = next((qualities[name] for name in ranges if name in qualities), 0.0)
        if quality > best_quality:
            best, best_quality = media_type, quality
    if not best:
        raise ProblemError("not_acceptable", f"send 'Accept: {PNG}' or 'Accept: {JSON}'")
    return best
