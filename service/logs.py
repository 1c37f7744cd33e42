"""The log of the service: a JSON object per line, without photos, file names or client addresses.

Apart from observability.py, because the process manager logs, too, and starts in less time without
FastAPI.
"""

import datetime as dt
import json
import logging
import sys
from typing import Any

log = logging.getLogger("anklealign.service")


class JsonFormatter(logging.Formatter):
    """Format each record as one line of JSON: time, level, event and the record's log_fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the JSON line of a record."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "log_fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII: no control character of a path reaches a terminal


def log_to_stdout() -> None:
    """Write the logs of the service and uvicorn to standard output, one JSON object per line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("anklealign.service", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
