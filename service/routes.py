"""Routes of the API: predictions, heat maps, model description, health and metrics."""

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from anklealign.inference.base_predictor import OpenedPhoto
from anklealign.models import calibration
from anklealign.models.input_config import Floats
from service import problems, pytorch
from service.batcher import Batcher
from service.catalog import Catalog, ServedModel
from service.observability import Metrics
from service.problems import ProblemError, openapi_responses
from service.schemas import (
    ExamplesResponse,
    ExplainResponse,
    HealthResponse,
    ModelResponse,
    ModelsResponse,
    Prediction,
    PredictResponse,
)
from service.settings import ServiceSettings
from service.uploads import FIELD, UploadReader

PNG, JSON = "image/png", "application/json"
UPLOAD_PROBLEMS = (
    "no_file", "wrong_field", "bad_form", "bad_request", "upload_too_slow", "upload_too_large",
    "too_many_files", "too_large", "wrong_type", "not_an_image", "zero_bytes", "truncated",
    "unreadable", "unsupported", "camera_raw", "too_slow", "decoder_crashed", "busy",
    "unknown_model",
)  # fmt: skip


class PhotoHandler:
    """Handles uploads and builds responses."""

    def __init__(
        self, settings: ServiceSettings, catalog: Catalog, batcher: Batcher, metrics: Metrics
    ) -> None:
        """Store the shared objects and create the upload reader."""
        self.catalog = catalog
        self._batcher = batcher
        self._metrics = metrics
        self._uploads = UploadReader(settings)
        self._refuses_unlike = settings.unlike == "refuse"
        self._loading = asyncio.Lock()

    async def classify(
        self, request: Request, max_files: int
    ) -> tuple[ServedModel, list[OpenedPhoto], Floats, Floats]:
        """Return a request's model, N photos, (N, K) probabilities and (N,) novelty scores.

        Raises:
            ProblemError: The model is unknown, the upload is invalid, a photo is unreadable, or the
                queue is full.
        """
        model = self.catalog.pick(request)
        self._batcher.check_capacity()
        async with self._uploads.photos(request) as photos:
            if len(photos) > max_files:
                detail = f"the request contains {len(photos)} photos; the maximum is {max_files}"
                raise ProblemError("too_many_files", detail)
            opened, probabilities, novelty = await self._batcher.classify(
                model.predictor, photos, request.is_disconnected
            )
        refused = self._refused(model, novelty)
        best = probabilities.argmax(1)
        predicted = [model.description.classes[k] for k in best[~refused]]
        request.state.log_fields |= {"photos": len(opened), "predicted": predicted}
        if self._metrics.several:
            request.state.log_fields["model"] = model.description.name
        for name in predicted:
            self._metrics.count_photo(model.description.name, name)
        return model, opened, probabilities, novelty

    def _refused(self, model: ServedModel, novelty: Floats) -> npt.NDArray[np.bool_]:
        """Return whether photos get no class, from their novelty scores: (N,) -> (N,)."""
        return ~model.predictor.in_distribution(novelty) & self._refuses_unlike

    def predictions(
        self, model: ServedModel, opened: list[OpenedPhoto], probabilities: Floats, novelty: Floats
    ) -> list[Prediction]:
        """Return the predictions for N photos: (N, K) probabilities and (N,) novelty scores."""
        predictor, classes = model.predictor, model.description.classes
        similar, refused = predictor.in_distribution(novelty), self._refused(model, novelty)
        sets = predictor.prediction_sets(probabilities)
        sets[refused] = True
        self._metrics.unlike.inc(int((~similar).sum()))
        abstained = calibration.abstains(sets)
        self._metrics.abstained.inc(int(abstained.sum()))
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
        self,
        model: ServedModel,
        photo: OpenedPhoto,
        probabilities: Floats,
        novelty: Floats,
        media_type: str,
    ) -> Response:
        """Return the heat map of the most probable class of one photo as PNG or JSON.

        Args:
            model: The model that is explained.
            photo: The photo.
            probabilities: (1, K).
            novelty: (1,).
            media_type: Of the response.

        Raises:
            ProblemError: The queue is full.
        """
        predicted = int(probabilities[0].argmax())
        async with self._loading:  # for the first heat map, while photos are classified
            predictor = await asyncio.to_thread(pytorch.load, model.predictor)
        from service import heatmaps  # noqa: PLC0415 - imported by `pytorch.load`

        seen, heat = await self._batcher.run_exclusive(
            lambda: heatmaps.compute(predictor, photo, predicted)
        )
        if media_type == PNG:
            return Response(heatmaps.over_photo(seen, heat), media_type=PNG)
        explanation = ExplainResponse(
            model=model.description.model,
            prediction=self.predictions(model, [photo], probabilities, novelty)[0],
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
        openapi_extra=upload_schema(settings.max_files) | handler.catalog.parameter(),
        responses=openapi_responses(*UPLOAD_PROBLEMS),
    )
    async def predict(request: Request) -> Response:
        """Classify one photo, sent as the request body, or one or more form fields named `file`.

        If any photo is unreadable, the whole request fails; `photo` in the problem details is the
        position of that photo.
        """
        model, opened, probabilities, novelty = await handler.classify(request, settings.max_files)
        response = PredictResponse(
            model=model.description.model,
            predictions=handler.predictions(model, opened, probabilities, novelty),
        )
        # Serialize directly: FastAPI would validate and copy the model again on every request.
        return Response(response.model_dump_json(), media_type=JSON)

    @router.post(
        "/explain",
        summary="Explain the prediction for a photo",
        response_model=ExplainResponse,
        openapi_extra=upload_schema(1) | handler.catalog.parameter(),
        responses=openapi_responses(*UPLOAD_PROBLEMS, "not_acceptable")
        | {200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def explain(request: Request) -> Response:
        """Return the heat map over the photo as PNG, or JSON with `Accept: application/json`.

        The JSON response contains the prediction, the photo as the model receives it, and the
        heat map as a separate image.
        """
        media_type = negotiate(request.headers.get("accept", "*/*"))
        model, (photo,), probabilities, novelty = await handler.classify(request, 1)
        return await handler.explain(model, photo, probabilities, novelty, media_type)

    return router


def model_routes(catalog: Catalog) -> APIRouter:
    """Return the routes that describe the models."""
    router = APIRouter()
    options: dict[str, Any] = {
        "openapi_extra": catalog.parameter(),
        "responses": openapi_responses("unknown_model"),
    }

    @router.get("/models", summary="List the models")
    async def models() -> ModelsResponse:
        """Return the served models, the default first; `?model=NAME` chooses one."""
        return ModelsResponse(models=catalog.summaries())

    @router.get("/model", summary="Describe a model", **options)
    async def describe(request: Request) -> ModelResponse:
        """Return the classes, preprocessing, hashes, scores and model card of a model."""
        return catalog.pick(request).description

    @router.get("/examples", summary="Example photos of each class", **options)
    async def examples(request: Request) -> ExamplesResponse:
        """Return photos of the model's dataset, which the bundle has if its config allows it."""
        return catalog.pick(request).examples

    return router


def status_routes(batcher: Batcher, metrics: Metrics) -> APIRouter:
    """Return the routes that describe the state of the service."""
    router = APIRouter()

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
