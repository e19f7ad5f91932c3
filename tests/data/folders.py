"""Writes a small folder data set for tests."""

import pathlib

import numpy as np

from pnoc_jax.io import images

CLASSES = ('background', 'cat', 'dog', 'horse')


def write(root: pathlib.Path, count: int = 4, *, masks: bool = True) -> pathlib.Path:
  """`count` images a, b, ... of the classes in turn; the last one has no label."""
  rng = np.random.default_rng(0)
  for name in ('images', 'masks', 'splits'):
    (root / name).mkdir(parents=True)
  (root / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
  ids = [chr(ord('a') + i) for i in range(count)]
  rows = ['id,labels']
  for i, name in enumerate(ids):
    shape = (20 + 4 * i, 30)
    images.write_png(
      root / 'images' / f'{name}.png', rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    )
    if masks:
      images.write_png(root / 'masks' / f'{name}.png', np.full(shape, i % 4, np.uint8))
    rows.append(f'{name},{"" if i == count - 1 else CLASSES[1 + i % 3]}')
  (root / 'image_labels.csv').write_text('\n'.join(rows) + '\n')
  (root / 'splits' / 'train.txt').write_text('\n'.join(ids) + '\n')
  return root


def replace(path: pathlib.Path, old: str, new: str) -> None:
  """Replaces text in a file."""
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new))
