"""A job's log as it grows: the cluster sends it once from its beginning, and then what is added."""

from __future__ import annotations

import codecs
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from assay.errors import AssayError


class LogStream:
    """One connection that a log comes through, read by a thread. Once it has ended, it takes another."""

    def __init__(self, read: Callable[[], Iterator[bytes]]) -> None:
        """`read` gives the log, and what is added to it, for as long as the connection lasts."""
        self._pieces: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(read,), name="log", daemon=True)
        self._thread.start()

    @property
    def open(self) -> bool:
        return self._thread.is_alive()

    @property
    def text(self) -> str:
        """The log from its beginning, as far as it has come. Lines end as in a text file."""
        return "".join(self._pieces)

    def _run(self, read: Callable[[], Iterator[bytes]]) -> None:
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        with suppress(AssayError):  # whoever asks next hears why
            for piece in read():
                self._pieces.append(decoder.decode(piece))
