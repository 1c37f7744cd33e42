"""What can be asked for: photos' classes, heat maps, the model, health, metrics."""

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from anklealign.explainability import attribution
from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Opened, Predictor
from anklealign.models import bundle, calibration
from anklealign.models.inputs import Floats
from service import heatmaps, problems
from service.batcher import Batcher
from service.observability import Meters
from service.problems import ProblemError, responses
from service.schemas import Explanation, Health, Model, Prediction, Predictions
from service.settings import Settings
from service.uploads import FIELD, Intake

PNG, JSON = heatmaps.PNG, "application/json"
UPLOAD_PROBLEMS = (
    "no_file", "wrong_field", "bad_form", "bad_request", "upload_too_slow", "upload_too_large",
    "too_many_files", "too_large", "wrong_type", "not_an_image", "zero_bytes", "truncated",
    "unreadable", "unsupported", "busy",
)  # fmt: skip


class Desk:
    """Takes photos in and speaks the model's answers."""

    def __init__(self, settings: Settings, model: Model, batcher: Batcher, meters: Meters) -> None:
        """Bring together what a request needs."""
        self.model = model
        self._batcher = batcher
        self._meters = meters
        self._intake = Intake(settings)

    async def answers(self, request: Request, most: int) -> tuple[list[Opened], Floats]:
        """Return a request's N photos as opened, and their (N, K) probabilities.

        Raises:
            ProblemError: The request cannot be answered.
        """
        self._batcher.check()
        async with self._intake.photos(request) as photos:
            if len(photos) > most:
                raise ProblemError("too_many_files", f"{most} is taken here, {len(photos)} came")
            opened, probabilities = await self._batcher.answer(photos, request.is_disconnected)
        predicted = [self.model.classes[k] for k in probabilities.argmax(1)]
        request.state.note["photos"] = len(opened)
        request.state.note["predicted"] = predicted
        for name in predicted:
            self._meters.photos.labels(name).inc()
        return opened, probabilities

    def spoken(self, opened: list[Opened], probabilities: Floats) -> list[Prediction]:
        """Return N photos' answers from their (N, K) probabilities."""
        sets = self._batcher.predictor.prediction_sets(probabilities)
        unsure = calibration.abstains(sets)
        self._meters.abstained.inc(int(unsure.sum()))
        classes = self.model.classes
        return [
            Prediction(
                predicted=classes[int(row.argmax())],
                probabilities=dict(zip(classes, row.tolist(), strict=True)),
                prediction_set=[name for name, held in zip(classes, kept, strict=True) if held],
                abstain=bool(abstain),
                width=photo.width,
                height=photo.height,
            )
            for photo, row, kept, abstain in zip(opened, probabilities, sets, unsure, strict=True)
        ]

    async def explained(self, photo: Opened, probabilities: Floats, kind: str) -> Response:
        """Return where the model looked for a photo's class: (K,) probabilities -> PNG or JSON.

        Raises:
            ProblemError: The queue is full.
        """
        predictor, predicted = self._batcher.predictor, int(probabilities.argmax())
        seen, heat = await self._batcher.explain(
            lambda: heatmaps.explained(predictor, photo, predicted)
        )
        if kind == PNG:
            return Response(heatmaps.png(attribution.overlay(seen, heat)), media_type=PNG)
        answer = Explanation(
            model=self.model.model,
            prediction=self.spoken([photo], probabilities[None])[0],
            seen=heatmaps.data_url(heatmaps.png(seen)),
            heat_map=heatmaps.data_url(heatmaps.png(heatmaps.layer(heat))),
        )
        return Response(answer.model_dump_json(), media_type=JSON)


def photo_routes(desk: Desk, settings: Settings) -> APIRouter:
    """Return the routes that take photos."""
    router = APIRouter()

    @router.post(
        "/predict",
        summary="Classify photos",
        response_model=Predictions,
        openapi_extra=upload(settings.max_files),
        responses=responses(*UPLOAD_PROBLEMS),
    )
    async def predict(request: Request) -> Response:
        """Classify one photo, sent as the body or as a form's field `file`, or several as `file`.

        All of them are answered or none: a photo that cannot be read is a problem whose `photo`
        tells which one it is.
        """
        opened, probabilities = await desk.answers(request, settings.max_files)
        spoken = desk.spoken(opened, probabilities)
        answer = Predictions(model=desk.model.model, predictions=spoken)
        # Written at once: FastAPI would check and copy it first, under the load of every request.
        return Response(answer.model_dump_json(), media_type=JSON)

    @router.post(
        "/explain",
        summary="Classify a photo and show where the model looked",
        response_model=Explanation,
        openapi_extra=upload(1),
        responses=responses(*UPLOAD_PROBLEMS, "not_acceptable")
        | {200: {"content": {PNG: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def explain(request: Request) -> Response:
        """Return the heat map over the photo as PNG, or with `Accept: application/json` as JSON.

        JSON holds the prediction, the photo as the model sees it, and the heat map alone.
        """
        kind = acceptable(request.headers.get("accept", "*/*"))
        (photo,), probabilities = await desk.answers(request, 1)
        return await desk.explained(photo, probabilities[0], kind)

    return router


def state_routes(model: Model, batcher: Batcher, meters: Meters) -> APIRouter:
    """Return the routes that tell of the model and of the service itself."""
    router = APIRouter()

    @router.get("/model", summary="Tell about the model")
    async def about() -> Model:
        """Return classes, preprocessing, hashes, scores and the model card."""
        return model

    @router.get("/health/live", summary="Tell that the process answers")
    async def live() -> Health:
        """Answer at once, whatever else is going on."""
        return Health(status="ok")

    @router.get(
        "/health/ready", summary="Tell whether photos are answered", responses=responses("busy")
    )
    async def ready() -> Health:
        """Answer 503 when the network has not come back from its work for far too long."""
        if batcher.stuck:
            raise problems.busy("the network is stuck")
        return Health(status="ok")

    @router.get(
        "/metrics",
        summary="Tell Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Return counts and durations in Prometheus' text format."""
        return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def describe(predictor: Predictor, engine: str, settings: Settings) -> Model:
    """Return what GET /model tells: of the bundle, and of the metrics where they are there.

    Raises:
        ValueError: metrics/evaluate.json is no JSON.
    """
    own = predictor.bundle
    digest = onnx_predictor.bundle_hash(settings.model)
    config = json.loads((settings.model / bundle.CONFIG).read_text(encoding="utf-8"))
    scores, card = settings.metrics / "evaluate.json", settings.metrics / "MODEL_CARD.md"
    record = dict(own.record)
    hashes = {"config_sha256": digest, "weights_sha256": config["anklealign"]["weights_sha256"]}
    hashes |= {key: record.pop(key) for key in sorted(record) if key.endswith("_sha256")}
    return Model(
        model=digest[:12],
        classes=list(own.classes),
        engine=engine,
        device=str(predictor.device),
        preprocessing={
            "preparation": asdict(own.preparation),
            "input": asdict(own.network_input),
            "temperature": own.temperature,
        },
        hashes=hashes,
        conformal_threshold=own.conformal_threshold,
        record=record,
        scores=json.loads(scores.read_text(encoding="utf-8")) if scores.is_file() else None,
        card=card.read_text(encoding="utf-8") if card.is_file() else None,
    )


def upload(most: int) -> dict[str, Any]:
    """Return the OpenAPI request body of an operation that takes one photo, or up to so many."""
    photo = {"type": "string", "format": "binary"}
    several = {"type": "array", "items": photo, "minItems": 1, "maxItems": most}
    field = several if most > 1 else photo
    form = {
        "type": "object",
        "properties": {FIELD: field},
        "required": [FIELD],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    for kind in ("image/jpeg", "image/png", "image/webp", "image/heic", "application/octet-stream"):
        content[kind] = {"schema": photo}
    return {"requestBody": {"required": True, "content": content}}


def acceptable(accept: str) -> str:
    """Return the kind that an Accept header prefers (RFC 9110, section 12.5.1): PNG where equal.

    Raises:
        ProblemError: It allows neither.
    """
    best, most = "", 0.0
    wishes: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wishes[name] = float(weight)
        except ValueError:
            wishes[name] = 0.0
    for kind in (PNG, JSON):
        ranges = (kind, kind.split("/")[0] + "/*", "*/*")
        quality = next((wishes[name] for name in ranges if name in wishes), 0.0)
        if quality > most:
            best, most = kind, quality
    if not best:
        raise ProblemError("not_acceptable", f"send 'Accept: {PNG}' or 'Accept: {JSON}'")
    return best
