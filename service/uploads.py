"""Request bodies in, photos' bytes out: bounded in size, number, time and memory.

Nothing is written to a disk. A form is taken apart once its body is here, by searching for its
boundary: a parser that goes byte by byte can be kept busy for a minute by a hostile body.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.message import Message

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import ProblemError, busy
from service.settings import Settings

FIELD = "file"
# Seconds without a byte after which a sender counts as gone; mobile networks pause for a few.
SILENCE = 10.0
RAW = re.compile(r"image/[\w.+-]+|application/octet-stream")
# A form's part has a few lines of headers; they are not where the photo is.
PART_HEAD = 4096


class Intake:
    """Receives bodies, and keeps count of the bytes that it has handed out."""

    def __init__(self, settings: Settings) -> None:
        """Start with nothing held."""
        self._settings = settings
        self._most = max(int(settings.max_memory_mb * 1e6), settings.max_upload)
        self._held = 0

    @asynccontextmanager
    async def photos(self, request: Request) -> AsyncIterator[list[bytes]]:
        """Yield the photos of a request, one for a raw body; the memory is counted until the end.

        Raises:
            ProblemError: The request holds no photo, or more than it may in any sense.
        """
        kind, boundary = content_type(request.headers)
        body = await self._receive(request)
        size = len(body)
        try:
            if not body:
                raise ProblemError("no_file", "the body is empty; send a photo, or a form with one")
            found = parts(body, boundary, self._settings.max_files) if kind == "form" else [body]
            del body  # a form's photos are copies
            yield found
        finally:
            self._held -= size

    async def _receive(self, request: Request) -> bytes:
        """Return a request's body, having counted it as held."""
        seconds = self._settings.upload_seconds
        announced = request.headers.get("content-length", "")
        if announced.isdigit():
            self._admit(int(announced), 0)
        now = asyncio.get_running_loop().time
        end = now() + seconds
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(min(end, now() + SILENCE)) as limit:
                async for chunk in request.stream():
                    self._admit(size + len(chunk), len(chunk))
                    self._held += len(chunk)
                    size += len(chunk)
                    chunks.append(chunk)
                    limit.reschedule(min(end, now() + SILENCE))
            return b"".join(chunks)
        except BaseException as error:  # cancelled too: what was counted is given back
            self._held -= size
            if isinstance(error, TimeoutError):
                raise ProblemError(
                    "upload_too_slow",
                    f"{size} bytes came, then none for {SILENCE:g} s, or not all in {seconds:g} s",
                ) from None
            if isinstance(error, ClientDisconnect):
                why = "the sender left before the body was complete"
                raise ProblemError("bad_request", why) from None
            raise

    def _admit(self, size: int, more: int) -> None:
        """Refuse a body of so many bytes, or `more` of them, where that is too much."""
        if size > self._settings.max_upload:
            raise ProblemError(
                "upload_too_large",
                f"the body is larger than {self._settings.max_upload_mb:g} MB; send a smaller one",
            )
        if self._held + more > self._most:
            raise busy("too many uploads are on their way")


def content_type(headers: Mapping[str, str]) -> tuple[str, bytes]:
    """Return 'form' with its boundary, or 'raw' with none.

    Raises:
        ProblemError: The content type is another one, or the form has no boundary.
    """
    given = headers.get("content-type", "")
    message = Message()
    message["content-type"] = given
    kind = message.get_content_type()
    if kind == "multipart/form-data":
        boundary = message.get_boundary("")
        # RFC 2046, section 5.1.1: 1 to 70 characters.
        if not 1 <= len(boundary) <= 70 or not boundary.isascii():
            raise ProblemError("bad_form", "the content type has no boundary of 1 to 70 characters")
        return "form", boundary.encode("ascii")
    if given and not RAW.fullmatch(kind):
        raise ProblemError(
            "wrong_type",
            f"the content type is {given[:100]!r}; send image/jpeg (or another photo's), "
            "application/octet-stream, or multipart/form-data with the photo as 'file'",
        )
    return "raw", b""


def parts(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    """Return the photos of a form (RFC 7578): the contents of its parts, all named 'file'.

    Raises:
        ProblemError: The form is torn, has no part, too many, or one of another name.
    """
    # The first delimiter has no line end before it when there is no preamble.
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary, most + 2)[1:]
    closed = [index for index, piece in enumerate(pieces) if piece.startswith(b"--")]
    count = closed[0] if closed else len(pieces)
    if count > most:
        raise ProblemError("too_many_files", f"a request may hold {most} photos")
    if not closed:
        raise ProblemError("bad_form", "the form's closing boundary is missing: was it cut off?")
    found = []
    for number, piece in enumerate(pieces[:count], 1):
        head, ended, content = piece.partition(b"\r\n\r\n")
        # Between boundary and line end RFC 2046 allows blanks.
        if not ended or len(head) > PART_HEAD or not head.lstrip(b" \t").startswith(b"\r\n"):
            raise ProblemError("bad_form", f"part {number} has no headers and empty line")
        name = _field(head)
        if name != FIELD:
            raise ProblemError(
                "wrong_field",
                f"part {number} is named {name[:100]!r}; name each photo's field {FIELD!r}",
            )
        found.append(content)
    if not found:
        raise ProblemError("no_file", "the form has no part; add the photo as field 'file'")
    return found


def _field(head: bytes) -> str:
    """Return the name in a part's Content-Disposition, '' without one."""
    for line in head.split(b"\r\n"):
        key, _, value = line.decode("utf-8", "replace").partition(":")
        if key.strip().lower() == "content-disposition":
            message = Message()
            message["content-disposition"] = " ".join(value.split())
            name = message.get_param("name", "", "content-disposition")
            return name if isinstance(name, str) else ""
    return ""
