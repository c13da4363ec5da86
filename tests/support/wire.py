"""A connection to a server of this machine that can be cut and mended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.ray_head import HOST
from tests.support.servers import free_port


class Wire:
    """A connection to the head that can be cut."""

    def __init__(self, port: int) -> None:
        self.to, self.port, self.whole = port, free_port(), True
        self.listener = socket.create_server((HOST, self.port))
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection((HOST, self.to))
                self.open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        one.close()
        other.close()

    @contextmanager
    def cut(self) -> Iterator[None]:
        self.whole = False
        for end in self.open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        yield
        self.whole = True
