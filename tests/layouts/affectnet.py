"""AffectNet: annotated arrays, and the original release's tables."""

import numpy as np

from tests.layouts.drawn import SIDE, Expected, Row, encode, face, huge_npy, npy, trap_npy, write

AFFECTNET = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')


def landmarks(number):
    """float32 [68, 2], another for each number."""
    return (np.arange(136, dtype=np.float32).reshape(68, 2) + number) / 4


def affectnet_arrays(root, per_class=2, faults=False):
    """train_set|val_set / images/N.jpg + annotations/N_exp.npy, N_val, N_aro, N_lnd; labels as strings or integers."""
    expected = Expected(root)
    for folder, split, first in (('train_set', 'train', 0), ('val_set', 'validation', per_class)):
        for index in range(8 * per_class):
            emotion = AFFECTNET[index % 8]
            picture = face(emotion, first + index // 8)
            write(root / folder / 'images' / f'{index}.jpg', encode(picture, 'JPEG'))
            values = {'exp': str(index % 8) if index % 2 else index % 8, 'val': f'{index % 5 / 4 - 0.5}'}
            values |= {'aro': index % 3 / 2, 'lnd': landmarks(index).astype(float).ravel()}
            for kind, value in values.items():
                write(root / folder / 'annotations' / f'{index}_{kind}.npy', npy(np.array(value)))
            numbers = {'valence': index % 5 / 4 - 0.5, 'arousal': index % 3 / 2, 'landmarks': landmarks(index)}
            expected.rows[f'{split}_{index}'] = Row(emotion, split, numbers=numbers)
    if faults:
        _affectnet_arrays_faults(root / 'train_set', expected)
    return expected


def _affectnet_arrays_faults(part, expected):
    good = encode(face('anger', 0), 'JPEG')
    reasons = {
        'label 8 (none) is no emotion': {'exp': npy(np.array('8'))},
        'label 9 (uncertain) is no emotion': {'exp': npy(np.array(9))},
        'label 10 (no face) is no emotion': {'exp': npy(np.array(10.0))},
        'unknown label 11; it can be 0 to 10': {'exp': npy(np.array(11))},
        'unknown label 1.5; it can be 0 to 10': {'exp': npy(np.array(1.5))},
        "'happy' is not a number": {'exp': npy(np.array('happy'))},
        '2 values instead of one': {'exp': npy(np.array([1, 2]))},
        'N_exp.npy: a npy file of objects, which is not read': {'exp': trap_npy(part.parent / 'trapped')},
        'N_exp.npy: not a npy file': {'exp': b'hello'},
        'N_exp.npy: a npy file whose header () int64 does not fit its 3 bytes of data': {'exp': npy(np.array(3))[:-5]},
        'N_exp.npy: a npy file whose header (1099511627776,) float64 does not fit its 0 bytes of data': {
            'exp': huge_npy()
        },
        'N_exp.npy: 80,128 bytes, more than the 65,536 allowed': {'exp': npy(np.zeros(10_000))},
        'there is no label annotations/N_exp.npy': {},
        'valence: 7 is outside -1 to 1': {'exp': npy(np.array(1)), 'val': npy(np.array(7))},
        'landmarks: 134 numbers instead of 68 x 2': {'exp': npy(np.array(1)), 'lnd': npy(np.zeros(134))},
        'landmarks: a coordinate that is not finite': {'exp': npy(np.array(1)), 'lnd': npy(np.full(136, 1e300))},
    }
    for number, (reason, files) in enumerate(reasons.items(), 100):
        write(part / 'images' / f'{number}.jpg', good)
        for kind, content in files.items():
            write(part / 'annotations' / f'{number}_{kind}.npy', content)
        expected.rejects[f'train_set/images/{number}.jpg'] = reason.replace('N_', f'{number}_')
    write(part / 'annotations' / '200_exp.npy', npy(np.array(1)))
    expected.rejects['train_set/annotations/200_exp.npy'] = 'there is no picture images/200'
    write(part / 'images' / '0.png', encode(face('anger', 1)))
    expected.rejects['train_set/images/0.png'] = 'the same number as train_set/images/0.jpg'
    # Without val, aro and lnd, and with -2 for none, the numbers are NaN; a broken picture shows when it is decoded.
    nothing = {'valence': np.nan, 'arousal': np.nan, 'landmarks': np.full((68, 2), np.nan)}
    write(part / 'images' / '201.jpg', b'\xff\xd8\xff\xe0 no picture')
    write(part / 'annotations' / '201_exp.npy', npy(np.array('6')))
    write(part / 'annotations' / '201_val.npy', npy(np.array('-2')))
    expected.rows['train_201'] = Row('anger', 'train', numbers=nothing)
    expected.broken.add('train_201')
    for name in ('README.txt', 'images/.DS_Store', 'annotations/300_val.npy'):
        write(part / name, npy(np.array(0)))
        expected.skipped.add(f'train_set/{name}')


def affectnet_tables(root, per_class=2, faults=False, pictures='Manually_Annotated_Images/'):
    """training.csv and validation.csv, with whole pictures in sub-directories of another folder, and face boxes."""
    expected = Expected(root)
    header = 'subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal'
    lines = {}
    for table, split, first in (('training.csv', 'train', 0), ('validation.csv', 'validation', per_class)):
        lines[table] = [header]
        for index in range(8 * per_class):
            path, left, top = f'{index % 3}/{split} é {index}.png', 7 + index % 5, 11
            whole = np.full((SIDE + 30, SIDE + 20, 3), index, np.uint8)
            whole[top : top + SIDE, left : left + SIDE] = face(AFFECTNET[index % 8], first + index // 8)
            write(root / f'{pictures}{path}', encode(whole))
            points = ';'.join(f'{value:.2f}' for value in landmarks(index).ravel())
            valence = -2 if index % 4 == 3 else index % 5 / 4 - 0.5
            lines[table].append(f'{path},{left},{top},{SIDE},{SIDE},{points},{index % 8},{valence},{index % 3 / 2}')
            numbers = {'valence': np.nan if valence == -2 else valence, 'arousal': index % 3 / 2}
            numbers |= {'landmarks': landmarks(index)}
            expected.rows[path] = Row(AFFECTNET[index % 8], split, box=(left, top, SIDE, SIDE), numbers=numbers)
    if faults:
        _affectnet_tables_faults(root, pictures, lines, expected)
    for table, rows in lines.items():
        write(root / table, '\n'.join(rows) + '\n')
    return expected


def _affectnet_tables_faults(root, pictures, lines, expected):
    points = ';'.join(['1.5'] * 136)
    write(root / f'{pictures}0/new.png', encode(face('anger', 0)))
    write(root / f'{pictures}0/broken.png', encode(face('anger', 0))[:700])
    start = len(lines['training.csv']) + 1
    for line, (reason, row) in enumerate(
        {
            'label 8 (none) is no emotion': f'0/new.png,1,1,9,9,{points},8,-2,-2',
            'the same picture as training.csv:START': f'0/new.png,1,1,9,9,{points},1,0,0',
            "there is no picture '0/gone.png'": f'0/gone.png,1,1,9,9,{points},1,0,0',
            "there is no picture '../../escape.png'": f'../../escape.png,1,1,9,9,{points},1,0,0',
            '3 columns instead of 9': '0/new.png,1,1',
        }.items(),
        start,
    ):
        lines['training.csv'].append(row)
        expected.rejects[f'training.csv:{line}'] = reason.replace('START', str(start))
    for number, (reason, row) in enumerate(
        {
            "'' is not a number": f'PATH,1,1,9,9,{points},,0,0',
            "'x' is not a number": f'PATH,x,1,9,9,{points},1,0,0',
            'a face box of -9 x 9 at 1, 1': f'PATH,1,1,-9,9,{points},1,0,0',
            'landmarks: 3 numbers instead of 68 x 2': 'PATH,1,1,9,9,1;2;3,1,0,0',
            'arousal: -3 is outside -1 to 1': f'PATH,1,1,9,9,{points},1,0,-3',
        }.items()
    ):
        write(root / f'{pictures}0/bad{number}.png', encode(face('anger', 0)))
        lines['training.csv'].append(row.replace('PATH', f'0/bad{number}.png'))
        expected.rejects[f'training.csv:{len(lines["training.csv"])}'] = reason
    lines['training.csv'] += ['', f'0/broken.png,1,1,9,9,{points},6,0,0']
    numbers = {'valence': 0, 'arousal': 0, 'landmarks': np.full((68, 2), 1.5)}
    expected.rows['0/broken.png'] = Row('anger', 'train', box=(1, 1, 9, 9), numbers=numbers)
    expected.broken.add('0/broken.png')
    expected.skipped |= {f'training.csv:{len(lines["training.csv"]) - 1} (blank)', 'automatically_annotated.csv'}
    write(root / 'automatically_annotated.csv', '\n'.join(lines['validation.csv']))
