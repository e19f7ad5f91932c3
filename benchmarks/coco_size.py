"""How long a run on as many images as COCO has takes until it begins to work, and with what.

    python benchmarks/coco_size.py --root=DIR               # makes 122,218 images of 16 px
    python benchmarks/coco_size.py --root=DIR --scale=0.01

The images are tiny, so what is measured is what their number costs: looking for files, reading
headers, sizes and annotations, the check, the plan. The first start decodes every image; the
second one finds what the first one kept. The same is asked of a pass over one split, until its
first batch, and of what a process that loads data is handed over.
"""

import argparse
import json
import os
import pathlib
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from pnoc_jax import config_flags
from pnoc_jax.data.readers import coco
from pnoc_jax.data.streams import buckets, pipeline
from pnoc_jax.io import images
from pnoc_jax.runs import runner

_PARTS = {'train2014': 82081, 'val2014': 40137}  # Images with labels.
_SIZES = tuple((height, width) for height in (12, 16, 20, 24) for width in (16, 24))


def generate(root: pathlib.Path, scale: float) -> None:
  """Writes a data set in COCO's layout, unless it is there.

  Args:
    root: its directory.
    scale: of the number of images.
  """
  encoded = [_encoded(height, width, seed) for seed, (height, width) in enumerate(_SIZES)]
  rng = np.random.default_rng(0)
  for part, count in _PARTS.items():
    path = root / 'annotations' / f'instances_{part}.json'
    if path.exists():
      continue
    (root / part).mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    listed, annotations = [], []
    for number in range(1, int(count * scale) + 1):
      kind = int(rng.integers(len(_SIZES)))
      name = f'COCO_{part}_{number:012d}.jpg'
      (root / part / name).write_bytes(encoded[kind])
      height, width = _SIZES[kind]
      listed.append({'id': number, 'file_name': name, 'height': height, 'width': width})
      # COCO has 2.9 classes and 7.3 regions in an image.
      for _ in range(int(rng.integers(4, 11))):
        x, y = int(rng.integers(width - 6)), int(rng.integers(height - 6))
        outline = [x, y, x + 5, y, x + 5, y + 5, x, y + 5]
        annotations.append(
          {
            'id': len(annotations) + 1,
            'image_id': number,
            'category_id': int(rng.integers(1, 81)),
            'segmentation': [outline],
          }
        )
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(coco.CLASSES)]
    content = {'images': listed, 'annotations': annotations, 'categories': categories}
    path.write_text(json.dumps(content), encoding='utf-8')


def _encoded(height: int, width: int, seed: int) -> bytes:
  """An image. It is a PNG, which readers accept under any name."""
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'image.png'
    images.write_png(path, pixels)
    return path.read_bytes()


class _Counter:
  """Counts calls of functions of the system and of this project."""

  def __init__(self):
    self.counts: dict[str, int] = {}

  def wrap(self, name: str, function: Callable) -> Callable:
    """The function, with its calls counted under a name."""

    def call(*args, **options):
      self.counts[name] = self.counts.get(name, 0) + 1
      return function(*args, **options)

    return call


def _waited() -> float:
  """Seconds that this thread was ready and had no core so far; 0 where the system does not tell."""
  try:
    return (
      int(pathlib.Path('/proc/thread-self/schedstat').read_text(encoding='utf-8').split()[1]) / 1e9
    )
  except OSError:
    return 0.0


def _start(root: pathlib.Path, workdir: pathlib.Path) -> tuple[list[float], dict[str, int]]:
  """Until a run of pnoc_coco has planned: seconds, and calls that ask for files.

  The seconds are those of the clock, those of CPU, user and system, and those in which others had
  the cores.
  """
  config = config_flags.load('configs/pnoc_coco.py', 'smoke')
  config.dataset.root = str(root)
  config.dataset.train_split, config.dataset.val_split = 'train2014_labelled', 'val2014_labelled'
  config.priors.splits = config.evaluation.crf_splits = config.predictions.splits = (
    config.dataset.train_split,
    config.dataset.val_split,
  )
  config.until = 'priors'
  counter = _Counter()
  stat, size = counter.wrap('stats', os.stat), counter.wrap('headers', images.image_size)
  begun, used, waited = time.monotonic(), os.times(), _waited()
  with (
    mock.patch.object(os, 'stat', stat),
    mock.patch.object(images, 'image_size', size),
    mock.patch.object(runner, '_run_stages'),
  ):
    runner.execute(config, workdir)
  seconds, waits, after = time.monotonic() - begun, _waited() - waited, os.times()
  return [seconds, after.user - used.user, after.system - used.system, waits], counter.counts


def _pass(root: pathlib.Path) -> tuple[float, int]:
  """Seconds of CPU until the first batch of priors; bytes that a worker is handed."""
  config = config_flags.load('configs/pnoc_coco.py', 'smoke').dataset
  config.root = str(root)
  source = coco.open_source(config, 'train2014_labelled', frozenset())
  begun = time.process_time()
  with buckets.multi_scale_batches(source, range(len(source)), buckets.Shapes()) as batches:
    next(iter(batches))
  seconds = time.process_time() - begun
  return seconds, len(pickle.dumps(pipeline.Examples(source)))


def main() -> None:
  """Makes the data set and prints a table."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--root', type=pathlib.Path, required=True)
  parser.add_argument('--scale', type=float, default=1.0)
  arguments = parser.parse_args()
  begun = time.monotonic()
  generate(arguments.root / 'data', arguments.scale)
  print(f'data set made in {time.monotonic() - begun:.0f} s')
  rows = []
  for name in ('first start', 'second start', 'third start'):
    (seconds, user, system, waits), counts = _start(arguments.root / 'data', arguments.root / 'run')
    rows.append(
      f'{name}: {seconds:.1f} s, of which {waits:.1f} s waiting for a core; CPU: '
      f'{user + system:.1f} s ({user:.1f} user, {system:.1f} system); {counts}'
    )
  seconds, size = _pass(arguments.root / 'data')
  rows.append(
    f'first batch of a pass: {seconds:.1f} s of CPU; a worker is handed {size / 2**20:.1f} MiB'
  )
  print('\n'.join(rows))


if __name__ == '__main__':
  main()
