"""Uploads that nobody should send: pictures cut, flipped and spliced, bombs, other kinds of files, forms gone wrong."""

import gzip
import io
import random
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>'
HTML = b'<!DOCTYPE html><html><body onload="alert(1)"><script src="//example.org"></script></body></html>'
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + b''.join(b'<!ENTITY %c "%s">' % (ord('b') + i, b'&%c;' % (ord('a') + i) * 10) for i in range(9))
    + b']><svg>&j;</svg>'
)
NAMES = (
    *('../../../../etc/passwd', r'..\..\windows\system32\a.png', '/etc/shadow', 'a\0.png', 'a.png%00.html', 'a' * 5000),
    *(
        'CON',
        '.',
        '..',
        '',
        '-rf',
        '$(reboot).jpg',
        '<img src=x onerror=alert(1)>.png',
        '\u202egnp.exe',
        '☺.jpg',
        'x.svg',
    ),
    *("'; DROP TABLE faces; --.png", 'a\r\nSet-Cookie: a=b', '{{7*7}}.png', '%s%n.png', '\ufeff', 'caf\u00e9.gif'),
)
KINDS = ('image/jpeg', 'image/png', 'image/svg+xml', 'text/html', 'application/json', 'x', '', 'multipart/form-data')


def pictures():
    """Small ones of every kind that is read."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    colour = Image.fromarray(noise)
    grey16 = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    made = []
    for picture, kind, options in (
        (colour, 'JPEG', {}),
        (colour.convert('CMYK'), 'JPEG', {}),
        (colour, 'JPEG', {'progressive': True, 'exif': Image.Exif().tobytes()}),
        (colour, 'PNG', {}),
        (colour.convert('RGBA'), 'PNG', {}),
        (colour.quantize(16), 'PNG', {'transparency': 0}),
        (grey16, 'PNG', {}),
        (colour.quantize(16), 'GIF', {'save_all': True, 'append_images': [colour.quantize(8)]}),
        (colour, 'WEBP', {}),
        (colour, 'WEBP', {'save_all': True, 'append_images': [colour.rotate(90)]}),
        (colour, 'TIFF', {'compression': 'tiff_lzw'}),
        (colour, 'TIFF', {'save_all': True, 'append_images': [colour]}),
        (colour, 'BMP', {}),
        (colour.convert('L'), 'PPM', {}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        made.append(file.getvalue())
    return made


def bombs():
    """Small files that are large, or would like to be, once they are unpacked."""
    chunk = lambda kind, content: (
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    )
    head = b'\x89PNG\r\n\x1a\n'
    size = lambda width, height, colour=0: chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0))
    zeros = zlib.compress(bytes(40_000_000), 9)
    grey = chunk(b'IDAT', zlib.compress(bytes(101 * 100)))
    end = chunk(b'IEND', b'')
    webp = lambda width, height: struct.pack('<I', width - 1)[:3] + struct.pack('<I', height - 1)[:3]
    riff = lambda content: b'RIFF' + struct.pack('<I', 4 + len(content)) + b'WEBP' + content
    frame = b',\0\0\0\0\1\0\1\0\0\2\2\x44\1\0'
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('../a.jpg', bytes(10_000_000))
    return [
        head + size(50_000, 50_000) + chunk(b'IDAT', zeros) + end,
        head + size(2**31 - 1, 2**31 - 1) + grey + end,
        head + size(0, 100) + grey + end,
        head + size(100, 100) + chunk(b'IDAT', zeros) + end,
        head + size(6000, 6000) + chunk(b'IDAT', zeros) + end,
        head + size(100, 100) + chunk(b'zTXt', b'a\0\0' + zeros) + grey + end,
        head + size(100, 100) + chunk(b'iTXt', b'a\0\1\0\0\0' + zeros) + grey + end,
        head + size(100, 100) + chunk(b'iCCP', b'a\0\0' + zeros) + grey + end,
        head + size(100, 100) + 3000 * chunk(b'tEXt', b'a\0b') + grey + end,
        b'GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff' + frame + b';',
        b'GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff' + 20_000 * frame + b';',
        riff(b'VP8X' + struct.pack('<I', 10) + b'\2\0\0\0' + webp(16_384, 16_384)),
        riff(b'VP8X' + struct.pack('<I', 10) + b'\2\0\0\0' + webp(2**24, 255)),
        b'BM' + struct.pack('<IHHIIiiHHIIiiII', 100, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0, 0, 1, 1, 0, 0),
        b'P6 99999 99999 255\n' + bytes(100),
        b'P5 1000000000000000000000 1 255\n',
        b'II*\0\x08\0\0\0' + struct.pack('<H', 65535) + bytes(range(256)) * 8,
        b'II*\0\x08\0\0\0\0\0\x08\0\0\0',  # a directory that is followed by itself
        b'\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1"\0\2\x11\1\3\x11\1\xff\xd9',
        gzip.compress(bytes(10_000_000)),
        archive.getvalue(),
        LAUGHS,
    ]


def other_files():
    """Files that are no pictures, some with a picture's beginning."""
    jpeg, _, _, png, *_ = pictures()
    return [
        SVG,
        HTML,
        b'',
        b'\0',
        b'GIF89a' + HTML,
        png[:8] + SVG,
        jpeg[:20] + HTML,
        b'%PDF-1.7\n' + png,
        b'#!/bin/sh\nreboot',
    ]


def uploads(count, seed):
    """`count` of them as (body, headers), the same for the same seed; each bomb and each other file at least once."""
    chance, seeds = random.Random(seed), pictures()
    fixed = [*bombs(), *other_files()]
    for index in range(count):
        if index < len(fixed) or chance.random() < 0.02:
            data = fixed[index] if index < len(fixed) else chance.choice(fixed)
        else:
            data = _mutated(chance, seeds)
        yield _sent(chance, data)


def _mutated(chance, seeds):
    data = bytearray(chance.choice(seeds))
    way = chance.randrange(6)
    if way == 0:
        return bytes(data[: chance.randrange(len(data))])
    if way == 1:
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif way == 2:  # most of what is dangerous stands at the beginning
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(min(len(data), 64))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    elif way == 3:
        other = chance.choice(seeds)
        data = data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]
    elif way == 4:
        start = chance.randrange(len(data))
        data[start:start] = chance.choice((SVG, HTML, bytes(1000), chance.randbytes(200)))
    else:
        return chance.choice((chance.randbytes(chance.randrange(1, 3000)), bytes(data) * 3, bytes(data)[::-1]))
    return bytes(data)


def _sent(chance, data):
    """As a body, or in a form that may be wrong."""
    if chance.random() < 0.5:
        return data, {'Content-Type': chance.choice(KINDS)}
    name = chance.choice(NAMES).encode()
    name = name if chance.random() < 0.2 else name.replace(b'\r\n', b'%0D%0A').replace(b'"', b'%22')
    head = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: %s\r\n\r\n'
    body = (
        head % (chance.choice((b'file', b'', b'x' * 500)), name, chance.choice(KINDS).encode())
        + data
        + b'\r\n--b--\r\n'
    )
    wrong = chance.random()
    if wrong < 0.1:
        body = body[: chance.randrange(len(body))]
    elif wrong < 0.2:
        body = body.replace(b'\r\n', chance.choice((b'\n', b'\r', b'\0', b'')), 3)
    elif wrong < 0.25:
        body = body[:-7] + body
    elif wrong < 0.3:
        body = body.replace(b'Content', b'C' * chance.choice((1, 10_000)), 1)
    boundary = chance.choice(('b', 'b', 'b', 'b', '"b"', '', 'bb', 'b' * 300, 'b; boundary=c'))
    return body, {'Content-Type': f'multipart/form-data; boundary={boundary}'}
