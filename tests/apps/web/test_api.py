"""The API over real HTTP: what it answers, what it refuses and how, its limits; with a stub for the networks."""

import concurrent.futures
import functools
import io
import json
import socket
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from fer_jax.apps.records import SCHEMA
from tests.serving import Stub, form, serving, stub_face


@pytest.fixture(scope='module')
def server():
    with serving(Stub()) as running:
        yield running


FACE = {'box', 'points', 'score', 'probabilities', 'emotion', 'emoji', 'unsure'}


def png(width=8, height=6, value=200):
    file = io.BytesIO()
    Image.new('L', (width, height), value).save(file, 'PNG')
    return file.getvalue()


def check_error(answer, status, wrong='', right=''):
    assert answer.status == status, answer.body
    said = answer.json
    assert said.keys() == {'schema', 'kind', 'status', 'wrong', 'right'}
    assert (said['schema'], said['kind'], said['status']) == (SCHEMA, 'error', status)
    assert wrong in said['wrong'] and right in said['right'] and said['right']
    return answer


def test_a_picture_as_body_or_as_form(server, astronaut):
    for answer, name in (
        (server.predict(astronaut), ''),
        (server.predict(*form(r'C:\pictures\..\me ☺.jpg', astronaut)[:1], **form('', b'')[1]), 'me ☺.jpg'),
        (server.ask('POST', '/api/predict', iter([astronaut[:1000], astronaut[1000:]])), ''),  # chunked
    ):
        assert answer.status == 200, answer.body
        said = answer.json
        (face,) = said.pop('faces')
        assert said == {
            'schema': SCHEMA,
            'kind': 'picture',
            'source': name,
            'width': 512,
            'height': 512,
            'bytes': len(astronaut),
        }
        assert face.keys() == FACE and face['box'] == [10, 20, 30, 40]
        assert face['probabilities'] == {'anger': 0.1, 'fear': 0.2, 'happiness': 0.7}
        assert answer.headers['Cache-Control'] == 'no-store' and 'read;dur=' in answer.headers['Server-Timing']
    assert server.predict(png(value=0)).json['faces'] == []


def test_a_session_keeps_its_people(astronaut):
    recognize = Stub(faces=[stub_face(), stub_face((200, 200, 50, 50))])
    with serving(recognize, smoothing=1e9) as server:
        first = server.predict(astronaut, '?session=abcdefgh').json
        recognize.faces = [stub_face((202, 199, 50, 50), (0.8, 0.1, 0.1)), stub_face((400, 10, 60, 60))]
        second = server.predict(astronaut, '?session=abcdefgh').json
        other = server.predict(astronaut, '?session=ABCDEFGH').json
        metrics = server.ask('GET', '/metrics').body.decode()
    assert [first['kind'], first['frame'], first['time'], second['frame']] == ['frame', 0, 0, 1]
    assert [face['person'] for face in first['faces'] + second['faces'] + other['faces']] == [1, 2, 2, 3, 1, 2]
    assert second['time'] > 0 and second['faces'][0].keys() == FACE | {'person', 'smoothed'}
    assert second['faces'][0]['probabilities']['anger'] == 0.8
    assert (
        second['faces'][0]['smoothed']['anger'] == pytest.approx(0.1) and second['faces'][0]['emotion'] == 'happiness'
    )
    assert 'fer_jax_live_sessions 2.0' in metrics


@pytest.mark.parametrize(
    ('query', 'wrong'), [('?session=a', 'no name'), ('?session=', 'no name'), ('?sesion=abcdefgh', "'sesion'")]
)
def test_parameters_that_are_none(server, astronaut, query, wrong):
    check_error(server.predict(astronaut, query), 400, wrong)


@pytest.mark.parametrize(
    ('body', 'status', 'wrong'),
    [
        (b'', 400, 'nothing was uploaded'),
        (b'\xef\xbb\xbf <?xml version="1.0"?><!-- x --><svg xmlns="http://www.w3.org/2000/svg"/>', 415, 'SVG'),
        (b'<!DOCTYPE html><script>alert(1)</script>', 415, 'HTML'),
        (b'%PDF-1.7', 415, 'PDF'),
        (b'\0\0\0\x1cftypheic', 415, 'HEIC, which is not read here (save it as JPEG)'),
        (b'\0\0\0\x1cftypisom', 415, 'a film'),
        (b'PK\x03\x04', 415, 'zip'),
        (b'words', 415, 'no picture'),
        (png()[:40], 422, 'damaged'),
        (png()[:-20], 422, 'undecodable picture'),
    ],
)
def test_what_is_no_picture_is_told_by_content(server, body, status, wrong):
    check_error(server.predict(body, **{'Content-Type': 'image/png'}), status, wrong)
    if body:
        check_error(server.predict(*form('picture.png', body)[:1], **form('', b'')[1]), status, wrong)


@pytest.mark.parametrize(
    ('change', 'wrong'),
    [
        (lambda body: body[:-10], 'no end'),
        (lambda body: body.replace(b'xYx', b'xYz'), 'cannot be read'),
        (lambda body: body.replace(b'; filename="a.jpg"', b''), 'no files'),
        (lambda body: body[: -len(b'--xYx--\r\n')] + body, '2 files'),
        (lambda body: b'', 'no end'),
    ],
)
def test_damaged_forms(server, change, wrong):
    body, headers = form('a.jpg', png())
    check_error(server.predict(change(body), **headers), 400, wrong, 'multipart/form-data')


def test_a_form_without_boundary(server):
    body, _ = form('a.jpg', png())
    check_error(server.predict(body, **{'Content-Type': 'multipart/form-data'}), 400)
    check_error(server.predict(body, **{'Content-Type': f'multipart/form-data; boundary={"x" * 300}'}), 400)


def test_limits_of_bytes_pixels_and_faces():
    limits = {'size': 20_000, 'pixels': 10_000, 'faces': 2}
    with serving(Stub(faces=[stub_face()] * 3), limits=limits) as server:
        said = server.predict(png()).json
        assert len(said['faces']) == 2 and said['more_faces'] is True
        check_error(server.predict(png(101, 100)), 413, 'more than 10,000 pixels', '10,000')
        check_error(server.predict(bytes(20_001)), 413, 'more than 20,000 bytes', '20,000')
        check_error(server.ask('POST', '/api/predict', iter([bytes(15_000)] * 2)), 413, 'bytes')
        check_error(server.predict(*form('a', bytes(20_001))[:1], **form('', b'')[1]), 413, 'bytes')
        declared = (
            b'POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n'
        )
        assert raw(server, declared).startswith(b'HTTP/1.1 413')


def raw(server, words, seconds=10):
    with socket.create_connection(('127.0.0.1', server.port), timeout=seconds) as connection:
        connection.sendall(words)
        return connection.recv(100_000)


def test_beyond_its_requests_the_server_asks_to_come_again():
    recognize = Stub()
    recognize.go.clear()
    with serving(recognize, limits={'requests': 3}) as server, concurrent.futures.ThreadPoolExecutor(12) as pool:
        admitted = [pool.submit(server.predict, png()) for _ in range(3)]
        wait_until(lambda: 'fer_jax_requests_in_progress 3.0' in server.ask('GET', '/metrics').body.decode())
        for answer in pool.map(server.predict, [png()] * 8):
            check_error(answer, 503, '3 requests', 'try again')
            assert 1 <= int(answer.headers['Retry-After']) <= 30
        assert server.ask('GET', '/healthz').status == 200
        recognize.go.set()
        assert [future.result().status for future in admitted] == [200] * 3
        assert server.predict(png()).status == 200
        assert recognize.calls == 4


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_time_runs_out_for_who_sends_slowly_and_for_who_waits():
    recognize = Stub()
    with serving(recognize, limits={'seconds': 0.3, 'requests': 2}) as server:
        slow = b'POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc'
        assert raw(server, slow).startswith(b'HTTP/1.1 408')
        recognize.go.clear()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for answer in pool.map(server.predict, [png()] * 2):
                check_error(answer, 503, 'no answer within 0.3 s')
        recognize.go.set()
        wait_until(lambda: server.predict(png()).status == 200)
        metrics = server.ask('GET', '/metrics').body.decode()
    assert 'fer_jax_requests_in_progress 0.0' in metrics


def test_who_goes_away_leaves_nothing_behind():
    with serving(Stub(), limits={'requests': 1}) as server:
        for _ in range(3):
            with socket.create_connection(('127.0.0.1', server.port)) as connection:
                connection.sendall(b'POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc')
        wait_until(lambda: server.predict(png()).status == 200)
        metrics = server.ask('GET', '/metrics').body.decode()
    assert 'fer_jax_requests_in_progress 0.0' in metrics


def test_the_token():
    with serving(Stub(), token='a secret of many letters') as server:
        for method, path in (('POST', '/api/predict'), ('GET', '/api/model'), ('GET', '/metrics')):
            for said, wrong in (
                ({}, 'a token is needed'),
                ({'Authorization': 'Bearer'}, 'a token is needed'),
                ({'Authorization': 'Bearer a secret'}, 'wrong'),
                ({'Authorization': 'Basic a secret of many letters'}, 'wrong'),
                ({'Authorization': 'Bearer ü'.encode().decode('latin-1')}, 'wrong'),
            ):
                answer = check_error(server.ask(method, path, None, said), 401, wrong, 'Bearer')
                assert answer.headers['WWW-Authenticate'] == 'Bearer'
        right = {'Authorization': 'bearer a secret of many letters'}
        assert server.predict(png(), **right).status == 200 == server.ask('GET', '/metrics', headers=right).status
        assert server.ask('GET', '/').status == 200 == server.ask('GET', '/healthz').status
        described = server.ask('GET', '/openapi.json')
        assert json.loads(described.body)['paths']['/api/predict']['post']['security'] == [{'token': []}]


def test_headers_stand_on_every_answer(server):
    answers = [server.ask('GET', path) for path in ('/', '/style.css', '/docs', '/healthz', '/api/predict', '/none')]
    answers += [server.predict(b'x'), server.ask('DELETE', '/api/model')]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 405, 404, 415, 405]
    for answer in answers:
        policy = answer.headers['Content-Security-Policy']
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and 'unsafe' not in policy
        assert answer.headers['X-Content-Type-Options'] == 'nosniff'
        assert answer.headers['Referrer-Policy'] == 'no-referrer' and 'Server' not in answer.headers
        assert 'camera=(self), display-capture=(self)' in answer.headers['Permissions-Policy']
    check_error(answers[4], 405, 'GET', 'POST')
    check_error(answers[5], 404, 'nothing here')


def test_other_sites_may_not_ask(server):
    check_error(server.predict(png(), **{'Sec-Fetch-Site': 'cross-site'}), 403, 'another site')
    assert server.predict(png(), **{'Sec-Fetch-Site': 'same-origin'}).status == 200


def test_paths_of_the_disk_are_not_reached(server):
    for path in (
        '/../setup.cfg',
        '/page/../app.py',
        '/%2e%2e/app.py',
        '/app.py',
        '//etc/passwd',
        '/..%2fapp.py',
        '/%00',
    ):
        check_error(server.ask('GET', path), 404)


def test_model_metrics_and_description():
    with serving(Stub()) as server:
        model = server.ask('GET', '/api/model').json
        assert model['class_names'] == ['anger', 'fear', 'happiness'] and model['members'] == ['run@1']
        assert model['limits']['requests'] == 8 and set(model['colours']) == {'anger', 'fear', 'happiness'}
        server.predict(png())
        server.predict(b'x')
        server.ask('GET', '/made-up')
        text = server.ask('GET', '/metrics').body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        counts = {
            (s.labels['path'], s.labels['status']): s.value for s in samples if s.name == 'fer_jax_requests_total'
        }
        assert counts == {
            ('/api/model', '200'): 1,
            ('/api/predict', '200'): 1,
            ('/api/predict', '415'): 1,
            ('other', '404'): 1,
        }
        assert next(s.value for s in samples if s.name == 'fer_jax_faces_total') == 1
        assert any(s.name == 'process_resident_memory_bytes' for s in samples)
        described = json.loads(server.ask('GET', '/openapi.json').body)
        docs = server.ask('GET', '/docs').body.decode()
    assert described['openapi'] == '3.1.0'
    assert set(described['paths']) == {'/api/predict', '/api/model', '/healthz', '/metrics'}
    assert set(described['paths']['/api/predict']['post']['responses']) >= {'200', '400', '413', '415', '422', '503'}
    assert '/api/predict' in docs and '<script' not in docs and 'style=' not in docs
    check_against(described, 'Model', model)


def check_against(described, name, content):
    """That content has what the description says, and nothing else."""
    schemas = described['components']['schemas']
    kinds = {'number': (int, float), 'integer': int, 'string': str, 'boolean': bool, 'array': list, 'object': dict}

    def check(schema, value):
        schema = schemas[schema['$ref'].rsplit('/', 1)[-1]] if '$ref' in schema else schema
        if 'const' in schema:
            assert value == schema['const']
            return
        assert isinstance(value, kinds[schema['type']])
        if schema['type'] == 'array':
            assert schema.get('minItems', 0) <= len(value) <= schema.get('maxItems', 1e9)
            for item in value:
                check(schema['items'], item)
        elif schema['type'] == 'object':
            assert set(schema['required']) <= value.keys() <= schema['properties'].keys()
            for key, item in value.items():
                check(schema['properties'][key], item)

    check({'$ref': name}, content)


def test_answers_are_as_described(server):
    described = json.loads(server.ask('GET', '/openapi.json').body)
    check_against(described, 'Picture', server.predict(png()).json)
    check_against(described, 'Frame', server.predict(png(), '?session=abcdefgh').json)
    check_against(described, 'Error', server.predict(b'x').json)
    check_against(described, 'Health', server.ask('GET', '/healthz').json)


def test_a_failure_is_said_and_the_server_lives():
    recognize = Stub()
    with serving(recognize) as server:
        recognize.faces = None  # list(None) fails
        check_error(server.predict(png()), 500, 'the server failed')
        recognize.faces = []
        assert server.predict(png()).status == 200


def test_nothing_is_written_to_disk(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('a file on the disk')

    for name in ('NamedTemporaryFile', 'TemporaryFile', 'SpooledTemporaryFile', 'mkstemp', 'mkdtemp'):
        monkeypatch.setattr(tempfile, name, refuse)
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, 'PNG')
    opened, here = [], threading.get_ident()
    note = lambda event, arguments: event == 'open' and threading.get_ident() != here and opened.append(arguments)
    monkeypatch.setitem(audited(), 'hook', note)
    with serving(Stub()) as server:
        server.predict(png())
        opened.clear()
        body, headers = form('large.png', file.getvalue())
        assert len(body) > 5_000_000 and server.predict(body, **headers).status == 200
        written = [arguments for arguments in opened if set(str(arguments[1])) & set('wax+')]
    assert not written


@functools.cache
def audited():
    """What is called for every event of Python's audit, under 'hook': such hooks cannot be taken back."""
    told = {'hook': lambda event, arguments: None}
    sys.addaudithook(lambda event, arguments: told['hook'](event, arguments))
    return told
