"""Read photos from request bodies, limited in size, number, time and memory.

Nothing is written to disk. A form is split at its boundary after the complete body has arrived:
a hostile body can keep a byte-by-byte parser busy for a minute.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import ProblemError, busy
from service.settings import ServiceSettings

FIELD = "file"
# Seconds without progress until an upload times out; mobile networks pause for a few seconds.
IDLE_SECONDS = 10.0
# Bytes per second below which an upload makes no progress: each byte extends the deadline by the
# time that it may take, up to IDLE_SECONDS from now. A photo of 1 MB passes within a minute.
FLOOR_RATE = 16_000
# Bodies of requests in progress can fill the memory and cannot be ended. A small body, of at most
# one SMALL-th of the memory, may take a RESERVE-th on top, so that it is not refused meanwhile.
SMALL, RESERVE = 64, 8
# Seconds after which an upload may be ended to make room for others.
EVICTION_SECONDS = 2.0
RAW = re.compile(r"image/[\w.+-]+|application/octet-stream")
MAX_FIELDS = 32  # form parts besides the photos
# Maximum size of the headers of a form part, in bytes; normal parts have a few lines.
MAX_PART_HEADERS = 4096
# Semicolons in a header with parameters; normal ones have two. Python's parser takes quadratic
# time: 4,000 in each of 48 parts kept the event loop busy for 2 s of CPU time.
MAX_SEMICOLONS = 16


@dataclass(eq=False)
class Upload:
    """An upload in progress: its start, its time limit, its size if declared, its bytes so far."""

    started: float
    limit: asyncio.Timeout
    size: int
    body: bytearray = field(default_factory=bytearray)
    evicted: bool = False


class UploadReader:
    """Reads request bodies and tracks their total size in memory.

    If all memory is taken, the upload that has held the most memory for the longest time is ended.
    Clients that hold large bodies open therefore lose them as soon as others need the memory.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        """Start with no bytes in memory."""
        self._settings = settings
        self._max_held = max(int(settings.max_memory_mb * 1e6), settings.max_upload)
        self._held = 0
        self._uploads: set[Upload] = set()

    @asynccontextmanager
    async def photos(self, request: Request) -> AsyncIterator[list[bytes]]:
        """Yield the photos of a request; their memory counts as held until the context exits.

        Raises:
            ProblemError: The request contains no photo, is malformed, or exceeds a limit.
        """
        kind, boundary = parse_content_type(request.headers)
        body = await self._receive(request)
        size = len(body)
        try:
            if not body:
                raise ProblemError("no_file", "the body is empty; send a photo or a form")
            photos = (
                parse_form(body, boundary, self._settings.max_files) if kind == "form" else [body]
            )
            del body  # the photos of a form are copies
            yield photos
        finally:
            self._held -= size

    async def _receive(self, request: Request) -> bytes:
        """Return the body of a request and count it as held."""
        seconds = self._settings.upload_seconds
        content_length = request.headers.get("content-length", "")
        declared = content_length.isascii() and content_length.isdecimal()
        size = int(content_length) if declared else 0
        self._check_size(size)
        now = asyncio.get_running_loop().time
        started = now()
        end, deadline = started + seconds, started + IDLE_SECONDS
        upload = Upload(started, asyncio.timeout_at(min(end, deadline)), size)
        try:
            async with upload.limit:
                self._uploads.add(upload)
                async for chunk in request.stream():
                    self._check_size(len(upload.body) + len(chunk))
                    self._make_room(len(chunk), upload, now())
                    self._held += len(chunk)
                    upload.body += chunk  # one object: chunks may be single bytes
                    deadline = min(deadline + len(chunk) / FLOOR_RATE, now() + IDLE_SECONDS)
                    if not upload.evicted:
                        upload.limit.reschedule(min(end, deadline))
            if upload.evicted:  # while its last chunk arrived
                raise TimeoutError  # noqa: TRY301 - as if it had ended in time
            return bytes(upload.body)
        except BaseException as error:  # includes cancellation: release the counted bytes
            if not upload.evicted:
                self._held -= len(upload.body)
            if upload.evicted and isinstance(error, TimeoutError):
                raise busy("other uploads need the memory of this slow one") from None
            if isinstance(error, TimeoutError):
                raise ProblemError(
                    "upload_too_slow",
                    f"the upload stopped after {len(upload.body)} bytes: less than "
                    f"{FLOOR_RATE / 1000:g} kB/s for {IDLE_SECONDS:g} s, or incomplete after "
                    f"{seconds:g} s",
                ) from None
            if isinstance(error, ClientDisconnect):
                detail = "the client disconnected before the body was complete"
                raise ProblemError("bad_request", detail) from None
            raise
        finally:
            self._uploads.discard(upload)

    def _check_size(self, size: int) -> None:
        """Raise if a body of `size` bytes is too large."""
        if size > self._settings.max_upload:
            raise ProblemError(
                "upload_too_large",
                f"the body is larger than {self._settings.max_upload_mb:g} MB; send a smaller one",
            )

    def _make_room(self, added: int, own: Upload, now: float) -> None:
        """End slow uploads until there is memory for `added` bytes; raise if none can be ended.

        An upload within its share of the memory also ends those that take more than theirs.
        """
        size = max(own.size, len(own.body) + added)
        reserve = self._max_held // RESERVE if size * SMALL <= self._max_held else 0
        while self._held + added > self._max_held + reserve:
            others = [
                upload for upload in self._uploads
                if upload is not own and not upload.evicted and upload.body
            ]  # fmt: skip
            share = self._max_held / len(self._uploads)
            slow = [upload for upload in others if now - upload.started > EVICTION_SECONDS]
            if not slow and size <= share:
                slow = [upload for upload in others if len(upload.body) > share]
            if not slow:
                raise busy("too many uploads are in progress")
            victim = max(slow, key=lambda upload: len(upload.body) * (now - upload.started))
            victim.evicted = True
            self._held -= len(victim.body)
            victim.body.clear()
            victim.limit.reschedule(now)


def parse_content_type(headers: Mapping[str, str]) -> tuple[str, bytes]:
    """Return ('form', boundary) for a multipart form, or ('raw', b'') for a photo.

    Raises:
        ProblemError: The content type is neither, or the form has no valid boundary.
    """
    content_type = headers.get("content-type", "")
    if content_type.count(";") > MAX_SEMICOLONS:
        raise ProblemError("wrong_type", f"the content type has over {MAX_SEMICOLONS} parameters")
    message = Message()
    message["content-type"] = content_type
    media_type = message.get_content_type()
    if media_type == "multipart/form-data":
        try:
            boundary = message.get_boundary("")
        except (LookupError, ValueError):  # a character set of RFC 2231 that does not decode
            boundary = ""
        # RFC 2046, section 5.1.1: 1 to 70 characters.
        if not 1 <= len(boundary) <= 70 or not boundary.isascii():
            raise ProblemError("bad_form", "the content type has no boundary of 1 to 70 characters")
        return "form", boundary.encode("ascii")
    if content_type and not RAW.fullmatch(media_type):
        raise ProblemError(
            "wrong_type",
            f"the content type is {content_type[:100]!r}; send image/jpeg or another image type, "
            "application/octet-stream, or multipart/form-data with the photo as 'file'",
        )
    return "raw", b""


def parse_form(body: bytes, boundary: bytes, max_files: int) -> list[bytes]:
    """Return the photos of a form (RFC 7578): the contents of its parts named 'file'.

    Parts that are not files, such as a CSRF token, are ignored: those without a file name.

    Raises:
        ProblemError: The form is malformed, has no photo or too many parts, or a file has another
            field name.
    """
    max_parts = max_files + MAX_FIELDS
    # Without a preamble, no line break precedes the first delimiter.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, max_parts + 2)[1:]
    closing = [index for index, piece in enumerate(pieces) if piece.startswith(b"--")]
    count = closing[0] if closing else len(pieces)
    if count > max_parts:
        detail = f"a form may have up to {max_files} photos and {MAX_FIELDS} other fields"
        raise ProblemError("too_many_files", detail)
    if not closing:
        raise ProblemError("bad_form", "the closing boundary of the form is missing")
    photos = []
    for number, piece in enumerate(pieces[:count], 1):
        headers, separator, content = piece.partition(b"\r\n\r\n")
        # RFC 2046 allows blanks between the boundary and the line break.
        start = headers.lstrip(b" \t")
        if not separator or len(headers) > MAX_PART_HEADERS or not start.startswith(b"\r\n"):
            raise ProblemError("bad_form", f"part {number} has no valid headers")
        name, is_file = _field(headers)
        if name == FIELD:
            photos.append(content)
        elif is_file:
            raise ProblemError(
                "wrong_field",
                f"part {number}, a file, is named {name[:100]!r}; name the field of each photo "
                f"{FIELD!r}",
            )
    if not photos:
        raise ProblemError("no_file", f"the form has no photo; add it as field {FIELD!r}")
    if len(photos) > max_files:
        raise ProblemError("too_many_files", f"a request may contain up to {max_files} photos")
    return photos


def _field(headers: bytes) -> tuple[str, bool]:
    """Return the name in a part's Content-Disposition header, and whether it has a file name."""
    for line in headers.split(b"\r\n"):
        key, _, value = line.decode("utf-8", "replace").partition(":")
        if key.strip().lower() == "content-disposition":
            if value.count(";") > MAX_SEMICOLONS:
                raise ProblemError(
                    "bad_form", f"a header of a part has over {MAX_SEMICOLONS} parameters"
                )
            message = Message()
            message["content-disposition"] = " ".join(value.split())
            try:
                name = message.get_param("name", "", "content-disposition")
                filename = message.get_param("filename", None, "content-disposition")
            except (LookupError, ValueError):
                raise ProblemError(
                    "bad_form", "a header of a part has an invalid character set"
                ) from None
            return name if isinstance(name, str) else "", filename is not None
    return "", False
