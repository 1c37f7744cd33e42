"""Error responses as problem details (RFC 9457) with stable codes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from anklealign.io import decode

MEDIA_TYPE = "application/problem+json"
INTERNAL_DETAIL = "the service failed to handle the request"
# Every operation may answer with these.
COMMON_PROBLEMS = ("internal", "unauthorized", "wrong_host", "too_many_requests", "bad_request")


class ProblemType(NamedTuple):
    """HTTP status and human-readable title of a problem."""

    status: int
    title: str


# HTTP status of each reason in decode.REASONS. The title is the text before the colon there; the
# text after it is for operators of the pipeline.
PHOTO_STATUS = {
    "zero_bytes": 422,
    "not_an_image": 415,
    "truncated": 422,
    "unreadable": 422,
    "unsupported": 422,
    "camera_raw": 415,
    "too_large": 413,
    "too_slow": 422,
    "decoder_crashed": 422,
}
PROBLEM_TYPES = {
    code: ProblemType(status, decode.REASONS[code].partition(":")[0])
    for code, status in PHOTO_STATUS.items()
} | {
    "unauthorized": ProblemType(401, "an API key is required"),
    "wrong_host": ProblemType(421, "the service does not answer for this host"),
    "too_many_requests": ProblemType(429, "too many requests of one client; retry later"),
    "no_file": ProblemType(400, "the request contains no photo"),
    "wrong_field": ProblemType(400, "a file in the form is not named 'file'"),
    "bad_form": ProblemType(400, "the form is not valid multipart/form-data"),
    "too_many_files": ProblemType(400, "the request contains too many photos"),
    "bad_request": ProblemType(400, "the request is malformed"),
    "not_found": ProblemType(404, "no such URL"),
    "unknown_model": ProblemType(404, "no served model has this name"),
    "method_not_allowed": ProblemType(405, "the URL does not support this method"),
    "not_acceptable": ProblemType(406, "no response format matches the Accept header"),
    "upload_too_slow": ProblemType(408, "the upload timed out"),
    "upload_too_large": ProblemType(413, "the request body is too large"),
    "wrong_type": ProblemType(415, "the content type is neither a form nor an image"),
    "internal": ProblemType(500, "internal error; see the service log"),
    "busy": ProblemType(503, "the service is busy; retry later"),
}


class ProblemDetails(BaseModel):
    """Body of every error response (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:anklealign:problem:truncated",
                    "title": PROBLEM_TYPES["truncated"].title,
                    "status": 422,
                    "code": "truncated",
                    "detail": "image file is truncated (12 bytes not processed)",
                    "photo": 1,
                    "request_id": "5f0c1a9be2d34c77",
                }
            ]
        }
    )
    type: str = Field(description="URN that ends in the code.")
    title: str = Field(description="Summary of the problem; constant for each code.")
    status: int = Field(description="HTTP status code.")
    code: str = Field(
        description="Machine-readable problem code.",
        json_schema_extra={"enum": list(PROBLEM_TYPES)},
    )
    detail: str = Field(description="Explanation of this occurrence of the problem.")
    photo: int | None = Field(
        None, description="Position of the affected photo in the request, starting at 1."
    )
    request_id: str = Field(description="Request ID, as in the service log.")


class ProblemError(Exception):
    """Error that ends a request; `code` is a key of PROBLEM_TYPES."""

    def __init__(
        self,
        code: str,
        detail: str,
        photo: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Store the code and the details of the problem."""
        super().__init__(detail)
        self.code, self.detail, self.photo = code, detail, photo
        self.headers = dict(headers or {})


def busy(reason: str) -> ProblemError:
    """Return the error for an overloaded service."""
    return ProblemError("busy", f"{reason}; retry in a second", headers={"Retry-After": "1"})


def problem_body(
    code: str, detail: str, request_id: str, photo: int | None = None
) -> dict[str, Any]:
    """Return the JSON body of a problem."""
    status, title = PROBLEM_TYPES[code]
    details = {
        "type": f"urn:anklealign:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    return details if photo is None else details | {"photo": photo}


def handle_exception(request: Request, error: Exception) -> Response:
    """Return the problem response for an exception, as a FastAPI exception handler."""
    if isinstance(error, HTTPException):  # raised by the router
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "bad_request")
        detail = f"{request.method} {request.url.path[:200]}: {PROBLEM_TYPES[code].title}"
        problem = ProblemError(code, detail, headers=error.headers)
    elif isinstance(error, ProblemError):
        problem = error
    else:
        problem = ProblemError("internal", INTERNAL_DETAIL)
    request.state.log_fields["code"] = problem.code
    return JSONResponse(
        problem_body(problem.code, problem.detail, request.state.id, problem.photo),
        PROBLEM_TYPES[problem.code].status,
        problem.headers,
        MEDIA_TYPE,
    )


def openapi_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of the given problems, grouped by HTTP status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEM_TYPES[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(
                f"`{code}`: {PROBLEM_TYPES[code].title}" for code in status_codes
            ),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                    "examples": {
                        code: {
                            "value": problem_body(
                                code, PROBLEM_TYPES[code].title, "5f0c1a9be2d34c77"
                            )
                        }
                        for code in status_codes
                    },
                }
            },
        }
        for status, status_codes in sorted(by_status.items())
    }
