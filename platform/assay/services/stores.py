"""Where a tracking store is, and why it cannot be used."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from assay.http import status_of


def sqlite_file(uri: str) -> Path | None:
    """The database file of an `sqlite:///` address, absolute; None for every other store."""
    found = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(found[1]).absolute() if found else None


def store_error(uri: str, seconds: float) -> str | None:
    """Why a tracking store cannot be used; None if it can. A database that does not exist yet is fine."""
    database = sqlite_file(uri)
    if database is not None:
        return _database_error(database, seconds)
    if not uri.startswith(("http://", "https://")):
        return None if _listens(uri, seconds) else "does not answer"
    status = status_of(uri.rstrip("/") + "/health", seconds=seconds)
    if status is None:
        return "does not answer"
    return f"answers with HTTP {status}" if status >= 500 else None


def _database_error(file: Path, seconds: float) -> str | None:
    import sqlite3
    from contextlib import closing

    folder = next((path for path in file.parents if path.exists()), file.parent)
    if not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        return "not writable"
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=seconds)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return f"not readable as a database: {error}"
    return None


def _listens(uri: str, seconds: float) -> bool:
    """Whether the server of a database address takes connections."""
    ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
    with suppress(OSError, ValueError):
        parts = urlsplit(uri)
        port = parts.port or ports.get(parts.scheme.split("+")[0])
        if parts.hostname and port:
            with socket.create_connection((parts.hostname, port), timeout=seconds):
                return True
    return False
