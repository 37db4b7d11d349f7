"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, exposition

from fer_jax.apps.recognized import RecognizedFace

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20)


class Metrics:
    """Counts of one server, in a registry of its own.

    Args:
        paths: that are counted under their own name; all others together, so that strangers cannot make up names.
        taken: gives the requests that are being worked on.
        sessions: gives the live sessions.
    """

    content_type = exposition.CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, paths: Iterable[str], taken: Callable[[], int], sessions: Callable[[], int]):
        self._paths, self._registry = frozenset(paths), CollectorRegistry()
        registry = {'registry': self._registry}
        ProcessCollector(**registry)
        self._requests = Counter('fer_jax_requests', 'Answers by path and status.', ('path', 'status'), **registry)
        self._seconds = Histogram(
            'fer_jax_request_seconds', 'Time to an answer.', ('path',), buckets=_SECONDS, **registry
        )
        self._work = Histogram('fer_jax_work_seconds', 'Time to read one picture.', buckets=_SECONDS, **registry)
        self._faces = Counter('fer_jax_faces', 'Faces read, by emotion.', ('emotion',), **registry)
        Gauge('fer_jax_requests_in_progress', 'Pictures that come in, wait or are read.', **registry).set_function(
            taken
        )
        Gauge('fer_jax_live_sessions', 'Cameras and screens of the last minute.', **registry).set_function(sessions)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        path = path if path in self._paths else 'other'
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def count_work(self, faces: Iterable[RecognizedFace], seconds: float) -> None:
        """Counts a picture that was read."""
        self._work.observe(seconds)
        for face in faces:
            self._faces.labels(face.emotion).inc()

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return exposition.generate_latest(self._registry)
