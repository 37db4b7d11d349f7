"""A real server on a port of its own, with a stub in the networks' place, and a client that speaks plain HTTP."""

import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time

import numpy as np

from fer_jax.apps.recognized import RecognizedFace, read_emotion
from fer_jax.apps.web import running
from fer_jax.apps.web.answers import Limits
from fer_jax.apps.web.app import Service

CLASSES = ('anger', 'fear', 'happiness')


def stub_face(box=(10, 20, 30, 40), shares=(0.1, 0.2, 0.7)):
    """A face as a recognizer gives it."""
    reading = read_emotion(np.array(shares), CLASSES, 0.5)
    points = np.array([[15, 30], [30, 30], [22, 40], [17, 50], [28, 50]], np.float32)
    return RecognizedFace(
        **vars(reading), box=np.array(box, np.float32), points=points, score=0.99, logits=np.zeros((1, 3)), seen=None
    )


class Stub:
    """Finds `faces` in every picture that has any colour or grey but black, after `seconds`."""

    def __init__(self, seconds=0.0, faces=None):
        self.faces = [stub_face()] if faces is None else faces
        self.seconds, self.calls, self.go = seconds, 0, threading.Event()
        self.go.set()

    def __call__(self, image):
        self.calls += 1
        time.sleep(self.seconds)
        assert self.go.wait(20)
        return list(self.faces) if image.any() else []


@dataclasses.dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        assert self.body.count(b'\n') == 1 and self.body.endswith(b'\n')
        return json.loads(self.body)


@dataclasses.dataclass
class Server:
    port: int
    stub: object

    def ask(self, method, path, body=None, headers=None, timeout=30):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def predict(self, body, query='', **headers):
        return self.ask('POST', f'/api/predict{query}', body, headers)


@contextlib.contextmanager
def serving(recognize, **options):
    """The application in a thread."""
    limits = Limits(**options.pop('limits', {}))
    service = Service(recognize, CLASSES, ('run@1',), limits=limits, **options)
    listening, listener = threading.Event(), socket.create_server(('127.0.0.1', 0))
    server = running.Server(service, listening.set)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert listening.wait(10)
        yield Server(listener.getsockname()[1], recognize)
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive()


def form(name, content, field='file', kind='image/jpeg'):
    """Body and headers of a form with one file."""
    head = f'--xYx\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    return head.encode() + content + b'\r\n--xYx--\r\n', {'Content-Type': 'multipart/form-data; boundary=xYx'}
