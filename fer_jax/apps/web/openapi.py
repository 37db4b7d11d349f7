"""The API described: as OpenAPI 3.1 for programs, as a plain page for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import fer_jax
from fer_jax.apps.records import SCHEMA
from fer_jax.apps.web.answers import Limits

_REFUSALS = {
    '400': 'Nothing was uploaded, the form is damaged or has not one file, or a parameter is unknown.',
    '401': 'The token is missing or wrong.',
    '403': 'A page of another site asks.',
    '408': 'The upload took too long.',
    '413': 'Too many bytes or pixels.',
    '415': 'By its content this is no picture that is read here, whatever its name.',
    '422': 'The picture is damaged.',
    '503': 'Too many requests at once, or no time was left; Retry-After says in how many seconds to come again.',
}
_BOX = 'Left, top, width and height in pixels of the upright picture.'
_POINTS = 'Left eye, right eye, nose, left and right corner of the mouth, as one looks at the picture; x and y each.'
_SMOOTHED = 'The mean over time, by which emotion and unsure are told.'
_FRAMES = {
    'first_of_frames': {'type': 'integer', 'description': 'Of an animation: of how many frames this is the first.'}
}
_NUMBER: dict[str, Any] = {'type': 'number'}
_SHARE: dict[str, Any] = {'type': 'number', 'minimum': 0, 'maximum': 1}


def describe(class_names: Sequence[str], limits: Limits, with_token: bool, reads: bool = True) -> dict[str, Any]:
    """The API of a server with these classes and limits as an OpenAPI 3.1 document.

    Args:
        reads: whether it reads pictures; else its page does.
    """
    paths = {
        '/api/predict': {'post': _predict(limits)},
        '/api/model': {'get': _get('What the server reads with: classes, members, threshold, limits.', 'Model')},
        '/healthz': {'get': _get('Whether the server works.', 'Health', private=False)},
        '/metrics': {'get': _metrics()},
    }
    if not reads:
        del paths['/api/predict']
    kept = 'Uploads are read in memory and forgotten.' if reads else 'Pictures are read in the browser and stay there.'
    document: dict[str, Any] = {
        'openapi': '3.1.0',
        'info': {
            'title': 'fer_jax',
            'version': fer_jax.__version__,
            'description': (
                'Faces in pictures and the emotion that people would name in them. Expression is not emotion: this '
                f'must not be used to judge anyone. {kept}'
            ),
        },
        'servers': [{'url': './'}],
        'paths': paths,
        'components': {'schemas': _schemas(class_names)},
    }
    if with_token:
        document['components']['securitySchemes'] = {'token': {'type': 'http', 'scheme': 'bearer'}}
        for path, methods in paths.items():
            if path != '/healthz':
                next(iter(methods.values()))['security'] = [{'token': []}]
    return document


def to_json(document: Mapping[str, Any]) -> bytes:
    """The document as it is sent."""
    return (json.dumps(document, ensure_ascii=False, indent=1) + '\n').encode()


def _predict(limits: Limits) -> dict[str, Any]:
    binary = {'schema': {'type': 'string', 'format': 'binary'}}
    form = {'type': 'object', 'properties': {'file': binary['schema']}, 'required': ['file']}
    answers = {'oneOf': [_reference('Picture'), _reference('Frame')]}
    return {
        'summary': 'Finds and reads the faces of one picture.',
        'description': (
            'JPEG, PNG, BMP, PNM, TIFF, WebP or GIF, told by content: as the body, or as the one file of a form. Up to '
            f'{limits.size:,} bytes and {limits.pixels:,} pixels; up to {limits.faces} faces are read, the surest; '
            f'{limits.requests} requests at once, {limits.seconds:g} seconds each.'
        ),
        'parameters': [
            {
                'name': 'session',
                'in': 'query',
                'description': (
                    'A name made up at random for a camera or a screen: its pictures, sent one after the other, are '
                    'frames, whose people keep their numbers. Forgotten after a minute.'
                ),
                'schema': {'type': 'string', 'pattern': '^[A-Za-z0-9_-]{8,64}$'},
            }
        ],
        'requestBody': {
            'required': True,
            'content': {
                'application/octet-stream': binary,
                'image/*': binary,
                'multipart/form-data': {'schema': form},
            },
        },
        'responses': {
            '200': {'description': 'The faces, the surest first.', 'content': {'application/json': {'schema': answers}}}
        }
        | {
            status: {'description': words, 'content': {'application/json': {'schema': _reference('Error')}}}
            for status, words in _REFUSALS.items()
        },
    }


def _get(summary: str, schema: str, private: bool = True) -> dict[str, Any]:
    content = lambda name: {'content': {'application/json': {'schema': _reference(name)}}}
    refusal = {'401': _REFUSALS['401']} if private else {'503': 'It does not.'}
    refusals = {status: {'description': words, **content('Error')} for status, words in refusal.items()}
    return {'summary': summary, 'responses': {'200': {'description': 'So it is.', **content(schema)}, **refusals}}


def _metrics() -> dict[str, Any]:
    text = {'text/plain': {'schema': {'type': 'string'}}}
    return {
        'summary': "Counts and times in Prometheus's text format.",
        'responses': {'200': {'description': 'They.', 'content': text}, '401': {'description': _REFUSALS['401']}},
    }


def _schemas(class_names: Sequence[str]) -> dict[str, Any]:
    whole, word = {'type': 'integer', 'minimum': 0}, {'type': 'string'}
    shares = _object(dict.fromkeys(class_names, _SHARE), description='By class; they sum to one.')
    names = {'type': 'array', 'items': word}
    point = {'type': 'array', 'items': _NUMBER, 'minItems': 2, 'maxItems': 2}
    face = {
        'box': {'type': 'array', 'items': _NUMBER, 'minItems': 4, 'maxItems': 4, 'description': _BOX},
        'points': {'type': 'array', 'items': point, 'minItems': 5, 'maxItems': 5, 'description': _POINTS},
        'score': {'type': 'number', 'description': 'Of the detection; with MTCNN from 0 to 1.'},
        'probabilities': shares,
        'emotion': {'type': 'string', 'enum': list(class_names), 'description': 'The most probable class.'},
        'emoji': {'type': 'string', 'description': "'' for a class that is none of the eight emotions."},
        'unsure': {'type': 'boolean', 'description': 'Whether its probability is under the threshold.'},
    }
    person = {'person': {'type': 'integer', 'minimum': 1}, 'smoothed': {**shares, 'description': _SMOOTHED}}
    faces = lambda name: {'type': 'array', 'items': _reference(name)}
    place = {'source': {'type': 'string', 'description': "The file's name, if it has one."}}
    place |= {'width': whole, 'height': whole}
    optional = {'more_faces': {'type': 'boolean', 'description': 'There are more faces than are read.'}}
    limits = {name: _NUMBER if name == 'seconds' else whole for name in Limits.__dataclass_fields__}
    return {
        'Picture': _line('picture', {**place, 'bytes': whole, 'faces': faces('Face')}, optional | _FRAMES),
        'Frame': _line('frame', {**place, 'frame': whole, 'time': _NUMBER, 'faces': faces('Person')}, optional),
        'Face': _object(face),
        'Person': _object({**face, **person}),
        'Model': _line(
            'model',
            {'class_names': names, 'members': names, 'threshold': _SHARE, 'limits': _object(limits)}
            | {'colours': _object(dict.fromkeys(class_names, word))},
            {'in_browser': _object({}, description='Where the page reads pictures itself: how.')},
        ),
        'Health': _line('health', {'status': {'const': 'ok'}}),
        'Error': _line('error', {'status': whole, 'wrong': word, 'right': word}),
    }


def _line(kind: str, fields: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    always = {'schema': {'const': SCHEMA}, 'kind': {'const': kind}, **fields}
    return _object(always, optional)


def _object(fields: Mapping[str, Any], optional: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {'type': 'object', 'properties': {**fields, **(optional or {})}, 'required': list(fields), **more}


def _reference(name: str) -> dict[str, str]:
    return {'$ref': f'#/components/schemas/{name}'}


def to_html(document: Mapping[str, Any]) -> str:
    """The document as a page without scripts."""
    write = html.escape
    parts = [f'<h1>{write(document["info"]["title"])} API</h1>', f'<p>{write(document["info"]["description"])}</p>']
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a>. For people: <a href="./">the page</a>.</p>')
    if '/api/predict' in document['paths']:
        parts.append(_CURL)
    for path, methods in document['paths'].items():
        for method, operation in methods.items():
            token = ' <small>(token)</small>' if 'security' in operation else ''
            parts.append(f'<h2><code>{method.upper()} {write(path)}</code>{token}</h2>')
            parts.append(f'<p>{write(operation["summary"])} {write(operation.get("description", ""))}</p>')
            rows = [
                (f'?{parameter["name"]}=', parameter['description']) for parameter in operation.get('parameters', ())
            ]
            rows += [(status, answer['description']) for status, answer in operation['responses'].items()]
            parts.append(_table(rows))
    parts.append('<h2>What is answered</h2>')
    for name, schema in document['components']['schemas'].items():
        parts.append(f'<h3>{write(name)}</h3>')
        required = schema['required']
        rows = [
            (field + ('' if field in required else ' (not always)'), _kind(kind))
            for field, kind in schema['properties'].items()
        ]
        parts.append(_table(rows))
    return _PAGE.format(body='\n'.join(parts))


def _kind(schema: Mapping[str, Any]) -> str:
    words = schema.get('description', '')
    if '$ref' in schema:
        return schema['$ref'].rsplit('/', 1)[-1]
    if 'const' in schema:
        return json.dumps(schema['const'])
    if schema['type'] == 'array':
        kind = f'list of {_kind(schema["items"])}'
    elif 'enum' in schema:
        kind = ', '.join(schema['enum'])
    elif schema['type'] == 'object':
        kind = ', '.join(f'{name}: {_kind(value)}' for name, value in schema['properties'].items())
        kind = f'{{{kind}}}'
    else:
        kind = schema['type']
    return f'{kind}. {words}' if words else kind


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = ''.join(
        f'<tr><th scope="row"><code>{html.escape(name)}</code></th><td>{html.escape(words)}</td></tr>'
        for name, words in rows
    )
    return f'<table>{cells}</table>'


_CURL = (
    '<pre>curl --data-binary @photo.jpg -H "Content-Type: image/jpeg" http://HOST:PORT/api/predict\n'
    'curl -F file=@photo.jpg http://HOST:PORT/api/predict</pre>'
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fer_jax API</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="style.css">
</head>
<body class="docs">
<main>
{body}
</main>
</body>
</html>
"""
