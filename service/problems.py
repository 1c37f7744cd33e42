"""What can go wrong, as problem details (RFC 9457) with codes that stay as they are."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from anklealign.io import decode

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem: its HTTP status and what a person would call it."""

    status: int
    title: str


# Statuses of images.REASONS; what a reason means is said there, once, before the colon. What stands
# behind it is for whoever runs the pipeline.
PHOTO_STATUS = {
    "zero_bytes": 422,
    "not_an_image": 415,
    "truncated": 422,
    "unreadable": 422,
    "unsupported": 422,
    "too_large": 413,
}
KINDS = {
    code: Kind(status, decode.REASONS[code].partition(":")[0])
    for code, status in PHOTO_STATUS.items()
} | {
    "no_file": Kind(400, "the request holds no photo"),
    "wrong_field": Kind(400, "a form field has another name than 'file'"),
    "bad_form": Kind(400, "the form is not well-formed multipart/form-data"),
    "too_many_files": Kind(400, "more photos in one request than allowed"),
    "bad_request": Kind(400, "the request is not well-formed"),
    "not_found": Kind(404, "there is nothing at this address"),
    "method_not_allowed": Kind(405, "this address does not take this method"),
    "not_acceptable": Kind(406, "the answer comes in no format that the Accept header allows"),
    "upload_too_slow": Kind(408, "the photo did not arrive in time"),
    "upload_too_large": Kind(413, "the request is larger than allowed"),
    "wrong_type": Kind(415, "the content type is neither a form nor a photo's"),
    "internal": Kind(500, "the service made a mistake; its log has the details"),
    "busy": Kind(503, "too many photos are waiting; come back later"),
}


class ProblemDetails(BaseModel):
    """The body of every error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:anklealign:problem:truncated",
                    "title": KINDS["truncated"].title,
                    "status": 422,
                    "code": "truncated",
                    "detail": "image file is truncated (12 bytes not processed)",
                    "photo": 1,
                    "request_id": "5f0c1a9be2d34c77",
                }
            ]
        }
    )
    type: str = Field(description="A URN that ends in the code.")
    title: str = Field(description="What went wrong, the same words for the same code.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(
        description="What went wrong, for programs.", json_schema_extra={"enum": list(KINDS)}
    )
    detail: str = Field(description="What went wrong this time, for people.")
    photo: int | None = Field(None, description="Which photo of the request, from 1.")
    request_id: str = Field(description="The id under which the log knows the request.")


class ProblemError(Exception):
    """A request that cannot be answered; `code` is a key of KINDS."""

    def __init__(
        self,
        code: str,
        detail: str,
        photo: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the code beside the sentence."""
        super().__init__(detail)
        self.code, self.detail, self.photo = code, detail, photo
        self.headers = dict(headers or {})


def busy(why: str) -> ProblemError:
    """Return the problem of a service that has all it can do."""
    return ProblemError("busy", f"{why}; try again in a second", headers={"Retry-After": "1"})


def body(code: str, detail: str, request_id: str, photo: int | None = None) -> dict[str, Any]:
    """Return a problem's body."""
    status, title = KINDS[code]
    details = {
        "type": f"urn:anklealign:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    return details if photo is None else details | {"photo": photo}


def respond(request: Request, error: Exception) -> Response:
    """Return the answer to a request that ended in an error, for FastAPI's exception handlers."""
    if isinstance(error, HTTPException):  # raised by the router
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "bad_request")
        detail = f"{request.method} {request.url.path[:200]}: {KINDS[code].title}"
        problem = ProblemError(code, detail, headers=error.headers)
    elif isinstance(error, ProblemError):
        problem = error
    else:
        problem = ProblemError("internal", "nothing is known to be wrong with the request")
    request.state.note["code"] = problem.code
    return JSONResponse(
        body(problem.code, problem.detail, request.state.id, problem.photo),
        KINDS[problem.code].status,
        problem.headers,
        MEDIA_TYPE,
    )


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of an operation that may end in these problems."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in found),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                    "examples": {
                        code: {"value": body(code, KINDS[code].title, "5f0c1a9be2d34c77")}
                        for code in found
                    },
                }
            },
        }
        for status, found in sorted(by_status.items())
    }
