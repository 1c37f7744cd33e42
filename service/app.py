"""The FastAPI application: the API and the web page for one or more bundles."""

import hashlib
import html
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException

from anklealign.inference import onnx_predictor
from anklealign.inference.base_predictor import BasePredictor
from service import problems, pytorch, routes
from service.access import AccessMiddleware
from service.batcher import Batcher
from service.catalog import Catalog, ServedModel, serve_model
from service.observability import Metrics, ObservabilityMiddleware
from service.problems import ProblemDetails, ProblemError
from service.schemas import ModelResponse
from service.settings import ServiceSettings

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"


def load(settings: ServiceSettings, name: str | None = None) -> tuple[BasePredictor, str]:
    """Return a bundle's predictor and the name of its engine, onnx or torch.

    Args:
        settings: Of the service.
        name: Of the bundle; default, the default one.

    Raises:
        ValueError: The bundle is missing or invalid, the export is stale, or the device does not
            exist.
    """
    bundles = settings.bundles()
    name = name or next(iter(bundles))
    folder, export, engine = bundles[name], settings.export_of(name), settings.engine
    automatic = engine == "auto" and export.is_file() and pytorch.runs_on_cpu(settings.device)
    if engine == "onnx" or automatic:
        exported = onnx_predictor.load(folder, export)
        if engine == "onnx" or exported.preferred_engine == "onnx":
            if exported.needs_pytorch:
                pytorch.load(exported)
            return exported, "onnx"
    predictor = pytorch.predictor_class().load(folder, settings.device)
    if predictor.device.type == "cpu":
        return onnx_predictor.with_novelty_session(predictor, export), "torch"
    return predictor, "torch"


def load_catalog(settings: ServiceSettings, predictor: BasePredictor, engine: str) -> Catalog:
    """Return all served models, of which the default one is loaded already.

    Raises:
        ValueError: As `load`, or metrics/details/evaluate.json is not what evaluate writes.
    """
    models: dict[str, ServedModel] = {}
    for name, folder in settings.bundles().items():
        if models:
            predictor, engine = load(settings, name)
        models[name] = serve_model(name, folder, settings.metrics_of(name), predictor, engine)
    return Catalog(models)


def create(
    settings: ServiceSettings, predictor: BasePredictor, engine: str
) -> ObservabilityMiddleware:
    """Return the application for the default bundle, and for further ones of the settings.

    Raises:
        ValueError: A further bundle cannot be loaded, metrics/details/evaluate.json is not what
            evaluate writes, or the file of the API keys is invalid.
    """
    catalog = load_catalog(settings, predictor, engine)
    metrics = Metrics({m.description.name: m.description.classes for m in catalog})
    batcher = Batcher(
        [model.predictor for model in catalog],
        settings.threads,
        settings.queue,
        int(settings.max_decode_mb * 1e6),
        metrics.batch.observe,
    )
    metrics.waiting.set_function(lambda: batcher.pending)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    app = FastAPI(
        title="AnkleAlign",
        version="1",
        description="Classify photos with a trained model. Errors are problem details (RFC 9457) "
        "with a stable `code`.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # Both documentation pages load scripts from other origins.
        docs_url=None,
        redoc_url=None,
        # Return 404 instead of a redirect for a trailing slash: curl does not follow redirects.
        redirect_slashes=False,
        responses=problems.openapi_responses(*problems.COMMON_PROBLEMS),
    )
    for error in (ProblemError, HTTPException, Exception):
        app.add_exception_handler(error, problems.handle_exception)
    handler = routes.PhotoHandler(settings, catalog, batcher, metrics)
    app.include_router(routes.photo_routes(handler, settings))
    app.include_router(routes.model_routes(catalog))
    app.include_router(routes.status_routes(batcher, metrics))
    add_page(app, catalog.default.description)
    add_problem_schema(app)
    app.add_middleware(AccessMiddleware, settings=settings, keys=settings.read_keys())
    if settings.origins:  # the outer one: problems of access have its headers, too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return ObservabilityMiddleware(app, metrics)


def add_page(app: FastAPI, model: ModelResponse) -> None:
    """Serve the page from memory: request paths never reach the file system."""
    for file in sorted(path for path in PAGE.rglob("*") if path.is_file()):
        name, content = file.relative_to(PAGE).as_posix(), file.read_bytes()
        if name == INDEX:
            add_file(app, "/", name, fill_page(content.decode(), model).encode())
        else:
            add_file(app, f"/page/{name}", name, content)


def fill_page(template: str, model: ModelResponse) -> str:
    """Return index.html with the title, description and notice of a model."""
    for key in ("title", "description", "notice"):
        template = template.replace("{{" + key + "}}", html.escape(getattr(model, key)))
    return template


def add_file(app: FastAPI, url_path: str, name: str, content: bytes) -> None:
    """Serve the content of a file with this name at a URL path."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    app.add_route(url_path, send, ["GET"], include_in_schema=False)


def add_problem_schema(app: FastAPI) -> None:
    """Add the schema of problem details, which no operation declares as a response model."""
    schema = app.openapi()
    details = ProblemDetails.model_json_schema()
    schema.setdefault("components", {}).setdefault("schemas", {})["ProblemDetails"] = details
