"""The application: the API and the page beside it, over one predictor."""

import hashlib
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException

from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Predictor
from anklealign.models.inputs import pick_device
from service import problems, routes
from service.batcher import Batcher
from service.observability import Meters, Observed
from service.problems import ProblemDetails, ProblemError
from service.settings import Settings

PAGE = Path(__file__).parent / "page"


def load(settings: Settings) -> tuple[Predictor, str]:
    """Return the predictor and its engine, onnx or torch.

    Raises:
        ValueError: There is no sound bundle, the export is stale, or there is no such device.
    """
    wanted = settings.engine
    on_cpu = pick_device(settings.device).type == "cpu"
    if wanted == "onnx" or (wanted == "auto" and on_cpu and settings.export.is_file()):
        found = onnx_predictor.load(settings.model, settings.export)
        if wanted == "onnx" or found.faster_engine == "onnx":
            return found, "onnx"
    return Predictor.load(settings.model, settings.device), "torch"


def create(settings: Settings, predictor: Predictor, engine: str) -> Observed:
    """Return the application.

    Raises:
        ValueError: metrics/evaluate.json is no JSON.
    """
    model = routes.describe(predictor, engine, settings)
    meters = Meters(predictor.classes)
    batcher = Batcher(predictor, settings.threads, settings.queue, meters.batch.observe)
    meters.waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="AnkleAlign",
        version="1",
        description="Classifies photos by a trained bundle. Errors are problem details (RFC 9457) "
        "whose `code` stays as it is.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # An address that is nearly right is told to be wrong: curl follows no redirect by itself.
        redirect_slashes=False,
        responses=problems.responses("internal"),
    )
    for error in (ProblemError, HTTPException, Exception):
        app.add_exception_handler(error, problems.respond)
    desk = routes.Desk(settings, model, batcher, meters)
    app.include_router(routes.photo_routes(desk, settings))
    app.include_router(routes.state_routes(model, batcher, meters))
    add_page(app)
    describe_problems(app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return Observed(app, meters)


def add_page(app: FastAPI) -> None:
    """Serve the page from memory: a client's path is looked up in a table, never on a disk."""
    for file in sorted(path for path in PAGE.rglob("*") if path.is_file()):
        name = file.relative_to(PAGE).as_posix()
        add_file(app, "/" if name == "index.html" else f"/page/{name}", file)


def add_file(app: FastAPI, address: str, file: Path) -> None:
    """Serve one file's bytes, read now."""
    content = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    app.add_route(address, send, ["GET"], include_in_schema=False)


def describe_problems(app: FastAPI) -> None:
    """Add the schema of problem details, which no operation returns by its type."""
    schema = app.openapi()
    details = ProblemDetails.model_json_schema()
    schema.setdefault("components", {}).setdefault("schemas", {})["ProblemDetails"] = details
