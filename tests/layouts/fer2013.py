"""FER2013's table, and FER+ votes for its rows."""

import numpy as np

from fer_jax.data.dataset import EMOTIONS
from tests.layouts.drawn import Expected, Row, face, pixels, write

FER2013 = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
FERPLUS = ('neutral', 'happiness', 'surprise', 'sadness', 'anger', 'disgust', 'fear', 'contempt')
USAGES = {'train': 'Training', 'validation': 'PublicTest', 'test': 'PrivateTest'}


def fer2013(root, per_class=2):
    """fer2013.csv: emotion,pixels,Usage."""
    expected = Expected(root, tuple(name for name in EMOTIONS if name in FER2013))
    lines = ['emotion,pixels,Usage']
    for part, split in enumerate(USAGES):
        for index in range(7 * per_class):
            emotion = FER2013[index % 7]
            image = face(emotion, part * per_class + index // 7, 1)
            expected.rows[f'{USAGES[split]}_{len(lines) - 1:05d}'] = Row(emotion, split)
            lines.append(f'{index % 7},{pixels(image)},{USAGES[split]}')
    write(root / 'fer2013.csv', '\n'.join(lines) + '\n')
    return expected


def ferplus(root, per_class=2, faults=False):
    """fer2013.csv and fer2013new.csv beside it; a third of the rows has a split vote."""
    expected = Expected(root)
    lines = [f'Usage,Image name,{",".join(FERPLUS)},unknown,NF']
    bad = {
        (4, 4, 0, 0, 0, 0, 0, 0, 2, 0): 'no emotion has more than half of the votes',
        (5, 5, 0, 0, 0, 0, 0, 0, 0, 0): 'no emotion has more than half of the votes',
        (1, 1, 1, 1, 1, 1, 1, 1, 1, 1): 'no emotion has more than half of the votes',
        (1, 0, 0, 0, 3, 0, 0, 0, 6, 0): 'the majority says unknown',
        (0, 0, 0, 0, 0, 0, 0, 0, 4, 6): 'the majority says NF (not a face)',
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 10): 'the majority says NF (not a face)',
        (0, 10, 0, 0, 0, 0, 0, 0, 0, '-1'): "'-1' is not a number of votes",
        (0, 10, 0, 0, 0, 0, 0, 0, 0): '11 columns instead of 12',
    }
    for row, (identity, plain) in enumerate(fer2013(root, per_class).rows.items()):
        # 4 of 10 are more than half once the six single votes are struck out.
        votes = [0] * 10
        votes[FERPLUS.index(plain.emotion)] = (10, 6, 4)[row % 3]
        others = [index for index in range(10) if not votes[index]]
        for index in others[: (0, 2, 6)[row % 3]]:
            votes[index] = 2 if row % 3 == 1 else 1
        usage, name = USAGES[plain.split], f'fer{row:07d}.png'
        fault = list(bad)[row] if faults and row < len(bad) else None
        if fault:
            votes, name = fault, '' if fault[-1] == 10 else name
            expected.rejects[f'fer2013.csv:{row + 2}'] = f'fer2013new.csv:{row + 2}: {bad[fault]}'
        else:
            expected.rows[identity] = Row(plain.emotion, plain.split, numbers={'votes': np.array(votes)})
        lines.append(','.join(map(str, (usage, name, *votes))))
    write(root / 'fer2013new.csv', '\n'.join(lines) + '\n')
    return expected


def fer2013_noise(path, count=30, seed=0):
    """A table of noise. Row i: emotion i % 7; every fourth row PublicTest, every fifth PrivateTest."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 2304), np.uint8)
    with path.open('w') as file:
        file.write('emotion,pixels,Usage\n')
        for row, image in enumerate(images):
            usage = 'PublicTest' if row % 4 == 3 else 'PrivateTest' if row % 5 == 4 else 'Training'
            file.write(f'{row % 7},{" ".join(map(str, image))},{usage}\n')
    return path
