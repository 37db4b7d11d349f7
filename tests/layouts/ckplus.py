"""CK+: CK+48 folders, ckextended.csv, the original release."""

import numpy as np

from tests.layouts.drawn import Expected, Row, encode, face, pixels, write
from tests.layouts.fer2013 import FER2013, USAGES

CKPLUS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')  # 1 to 7 in its label files
CKEXTENDED = (*FER2013, 'contempt')


def ckplus_folders(root, people=4, faults=False):
    """CK+48/anger/S010_004_00000017.png: a sequence of three frames of each emotion for each of up to 16 people."""
    expected = Expected(root, CKPLUS)
    for emotion, subject, sequence, frame, image in _sequences(people):
        identity = f'{sequence}_{frame:08d}'
        folder = {'happiness': 'happy'}.get(emotion, emotion)
        write(root / 'CK+48' / folder / f'{identity}.png', encode(image))
        expected.rows[identity] = Row(emotion, 'train', subject, sequence)
    if faults:
        good = encode(face('anger', 0, 1))
        first = next(iter(expected.rows))
        nowhere = f'in no folder of an emotion of CK+ ({", ".join(CKPLUS)})'
        for name, reason in {
            'CK+48/anger/anger 1.png': 'no subject, sequence and frame in the file name; it is like …',
            f'CK+48/disgust/{first}.png': f'the same frame as CK+48/anger/{first}.png',
            'CK+48/neutral/S010_001_00000001.png': nowhere,
            'CK+48/unknown/S010_001_00000002.png': nowhere,
            'S010_001_00000003.png': nowhere,
        }.items():
            write(root / name, good)
            expected.rejects[name] = reason
        write(root / 'CK+48/fear/S999_001_00000004.png', good[:500])
        expected.rows['S999_001_00000004'] = Row('fear', 'train', 'S999', 'S999_001')
        expected.broken.add('S999_001_00000004')
        write(root / '__MACOSX/CK+48/anger/._S010_001_00000001.png', good)
        expected.skipped.add('__MACOSX/CK+48/anger/._S010_001_00000001.png')
    return expected


def _sequences(people):
    """Emotion, subject, sequence, frame and grey image, three frames a sequence, ever stronger in contrast."""
    for person in range(people):
        for number, emotion in enumerate(CKPLUS, 1):
            subject = f'S{10 + person:03d}'
            for frame in (14, 15, 16):
                image = (face(emotion, 2 * person, 1).astype(float) - 128) * (frame / 16) + 128
                yield emotion, subject, f'{subject}_{number:03d}', frame, image.round().astype(np.uint8)


def ckplus_original(root, people=4, faults=False):
    """cohn-kanade-images/S010/004/*.png and Emotion/S010/004/*_emotion.txt; faces within larger pictures."""
    expected = Expected(root, CKPLUS)
    for emotion, subject, sequence, frame, image in _sequences(people):
        _frame(root, sequence, frame, image)
        expected.rows[f'{sequence}_{frame:08d}'] = Row(emotion, 'train', subject, sequence)
        if frame == 16:
            _label(root, sequence, 16, f'   {CKPLUS.index(emotion) + 1}.0000000e+00\n')
            expected.skipped.add(f'{sequence} (2 frames before the last 3)')
            for earlier in (1, 2):
                _frame(root, sequence, earlier, face('neutral', 2, 1))
    _frame(root, 'S010_008', 1, face('neutral', 0, 1))
    expected.skipped.add('S010_008 (sequence without a label)')
    if faults:
        _original_faults(root, expected)
    return expected


def _frame(root, sequence, frame, image):
    """Writes a picture with the face away from its middle; returns its location."""
    name = f'cohn-kanade-images/{sequence.replace("_", "/")}/{sequence}_{frame:08d}.png'
    write(root / name, encode(np.pad(image, ((30, 20), (40, 40), (0, 0)), constant_values=90)))
    return name


def _label(root, sequence, frame, text):
    name = f'Emotion/{sequence.replace("_", "/")}/{sequence}_{frame:08d}_emotion.txt'
    write(root / name, text)
    return name


def _original_faults(root, expected):
    texts = {
        '   0.0000000e+00\n': 'label 0 is no emotion of CK+; it can be 1 to 7',
        '   8.0000000e+00\n': 'label 8 is no emotion of CK+; it can be 1 to 7',
        'anger': "'anger' is not a number",
        '': "'' is not a number",
    }
    for number, (text, reason) in enumerate(texts.items(), 20):
        sequence = f'S010_{number:03d}'
        for frame in (1, 2):
            location = _frame(root, sequence, frame, face('fear', 3, 1))
            expected.rejects[location] = f'{sequence}_00000002_emotion.txt: {reason}'
        _label(root, sequence, 2, text)
    location = _label(root, 'S010_030', 9, '   1.0000000e+00\n')
    expected.rejects[location] = 'there is no picture of the sequence S010_030'
    write(root / _frame(root, 'S010_031', 1, face('fear', 3, 1)), 'no picture')
    _label(root, 'S010_031', 1, '   4.0000000e+00\n')
    expected.rows['S010_031_00000001'] = Row('fear', 'train', 'S010', 'S010_031')
    expected.broken.add('S010_031_00000001')
    write(root / 'cohn-kanade-images/S010/notes.png', 'x')
    expected.skipped.add('cohn-kanade-images/S010/notes.png')


def ckplus_table(root, per_class=3, faults=False):
    """ckextended.csv: emotion,pixels,Usage; neutral three times as often."""
    expected = Expected(root)
    lines = ['emotion,pixels,Usage']
    for index in range(11 * per_class):
        emotion = (*CKEXTENDED, 'neutral', 'neutral', 'neutral')[index % 11]
        image = face(emotion, index // 11 + 4 * max(0, index % 11 - 7), 1)
        lines.append(f'{CKEXTENDED.index(emotion)},{pixels(image)},{list(USAGES.values())[index % 3]}')
        expected.rows[f'{index:05d}'] = Row(emotion, 'train')
    if faults:
        good = pixels(face('anger', 0, 1))
        start = len(lines)
        lines += [f'8,{good},Training', f'joy,{good},Training', f'0,{good}', f'0,"{good},Training', '']
        unknown = 'unknown emotion {}; it can be 0 to 7, or a word such as anger'
        expected.rejects |= {
            f'ckextended.csv:{start + 1}': unknown.format("'8'"),
            f'ckextended.csv:{start + 2}': unknown.format("'joy'"),
            f'ckextended.csv:{start + 3}': '2 columns instead of 3',
            f'ckextended.csv:{start + 4}': 'malformed row: unexpected end of data',
        }
        expected.skipped.add(f'ckextended.csv:{start + 5} (blank)')
        lines += [f'Angry,{good[:-4]},Training']
        expected.rows[f'{start + 3:05d}'] = Row('anger', 'train')
        expected.broken.add(f'{start + 3:05d}')
    write(root / 'ckextended.csv', '\n'.join(lines) + '\n')
    return expected
