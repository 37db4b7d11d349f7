"""uvicorn about the application."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn

from fer_jax.apps.web.app import Service, make_app


class Server(uvicorn.Server):
    """Serves until it is told to stop (SIGINT, SIGTERM, `should_exit`); requests that run then are ended first.

    Args:
        service: what is served.
        listening: called once it listens.
        access_log: whether each request is logged, in a line on standard output.
    """

    def __init__(self, service: Service, listening: Callable[[], None], access_log: bool = False):
        self._listening = listening
        # It warns of every damaged form, which any stranger can send; the answer says it already.
        logging.getLogger('python_multipart').setLevel(logging.ERROR)
        config = uvicorn.Config(
            make_app(service),
            log_level='info' if access_log else 'warning',
            access_log=access_log,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=round(service.limits.seconds) + 1,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()
