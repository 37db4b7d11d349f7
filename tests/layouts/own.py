"""Users' own pictures: one folder per class, or a table of path and label."""

from fer_jax.data.dataset import EMOTIONS
from tests.layouts.drawn import Expected, Row, encode, face, write

WORDS = {'anger': 'angry', 'happiness': 'Happy', 'sadness': 'sad', 'surprise': 'Surprised'}


def folders(root, per_class=2, faults=False, splits=('train', 'val', 'test'), names=None):
    """SPLIT/CLASS/picture, or CLASS/picture with `splits=('',)`; `names`: folder names by emotion (all eight)."""
    names = names or {emotion: WORDS.get(emotion, emotion) for emotion in EMOTIONS}
    expected = Expected(root)
    for part, folder in enumerate(splits):
        for emotion, name in names.items():
            for number in range(per_class):
                path = f'{folder}/{name}/{emotion} {number}.png'.lstrip('/')
                write(root / path, encode(face(emotion, per_class * part + number)))
                split = {'val': 'validation', '': 'train'}.get(folder, folder)
                expected.rows[path] = Row(emotion, split)
    if faults:
        top = f'{splits[0]}/' if splits[0] else ''
        good = encode(face('anger', 0))
        write(root / top / names['anger'] / 'broken.jpg', good[:300])
        write(root / top / names['anger'] / 'text.png', 'hello')
        for name in ('broken.jpg', 'text.png'):
            expected.rows[f'{top}{names["anger"]}/{name}'] = Row('anger', splits[0] or 'train')
            expected.broken.add(f'{top}{names["anger"]}/{name}')
        write(root / 'stray.png', good)
        expected.rejects['stray.png'] = 'in no class folder'
        if top:
            write(root / top / 'stray.png', good)
            write(root / 'old' / names['anger'] / '1.png', good)
            expected.rejects[f'{top}stray.png'] = 'in no class folder'
            expected.rejects[f'old/{names["anger"]}/1.png'] = "unknown split folder 'old'; it can be train, val or test"
        for name in ('notes.txt', f'{top}.hidden/1.png', f'{top}{names["anger"]}/Thumbs.db'):
            write(root / name, good)
            expected.skipped.add(name)
    return expected


def table(root, per_class=2, faults=False, header='path,label,split,subject', delimiter=',', names=None):
    """labels.csv and the pictures that it names, relative to it; some outside its folder."""
    names = names or {emotion: WORDS.get(emotion, emotion) for emotion in EMOTIONS}
    expected = Expected(root)
    lines = [header]
    for part, split in enumerate(('train', 'val', 'test')):
        for emotion, name in names.items():
            for number in range(per_class):
                subject, which = f'person {part} {number}', part * per_class + number
                path = f'pictures é/{split}/{emotion} {number}.png'
                write(root / path, encode(face(emotion, which)))
                cells = {'path': path, 'label': name, 'split': split, 'subject': subject}
                lines.append(cells)
                expected.rows[path] = Row(emotion, {'val': 'validation'}.get(split, split), subject)
    if faults:
        good = {'path': 'new.png', 'label': 'angry', 'split': 'train', 'subject': ''}
        write(root / 'new.png', encode(face('anger', 0))[:400])
        expected.rows['new.png'] = Row('anger', 'train')
        expected.broken.add('new.png')
        write(root / 'newer.png', encode(face('anger', 0)))
        first = len(lines) + 1
        for change, reason in (
            ({}, None),
            ({'path': './new.png'}, f'the same picture as labels.csv:{first}'),
            ({'path': 'gone.png'}, "there is no picture 'gone.png'"),
            ({'path': ''}, 'no path'),
            ({'path': 'newer.png', 'label': ''}, 'no label'),
            ({'path': 'newer.png', 'split': 'tset'}, "unknown split 'tset'; it can be train, val or test"),
        ):
            lines.append(good | change)
            if reason:
                expected.rejects[f'labels.csv:{len(lines)}'] = reason
        lines += ['newer.png', '']
        expected.rejects[f'labels.csv:{len(lines) - 1}'] = '1 columns instead of 4'
        expected.skipped.add(f'labels.csv:{len(lines)} (blank)')
    columns = [word.strip() for word in header.split(delimiter)]
    keys = dict(zip(columns, ('path', 'label', 'split', 'subject'), strict=False))
    text = (line if isinstance(line, str) else delimiter.join(line[keys[key]] for key in columns) for line in lines)
    write(root / 'labels.csv', '\n'.join(text) + '\n')
    return expected
