"""How many training images does a core load in a second, and how many does PyTorch's loader?

    python benchmarks/torch_loader.py --images=VOCdevkit/VOC2012/JPEGImages  # or with made-up ones

One row for each recipe (`:journal` of VOC and COCO; CAM generator: long side drawn, flip, colour
jitter, crop). Both loaders work in one process, turn by turn, and are measured in CPU seconds of
the process, so that other work on the machine matters little. Columns, images a CPU second:

ours        data.streams.pipeline: u8 images and their boxes; the device normalises
torch u8    torch's DataLoader, Pillow and torchvision: the same result
torch       the same, normalised to float32 on the host, as the reference does it

Needs grain, numpy and Pillow; without torch and torchvision there is only the first column.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.io import images

_JITTER = transforms.Augment.COLORJITTER
RECIPES = {
  'voc': transforms.TransformConfig(min_size=320, max_size=640, crop=512, augment=_JITTER),
  'coco': transforms.TransformConfig(min_size=400, max_size=800, crop=640, augment=_JITTER),
}


class Folder:
  """A split of JPEGs that all have the one class."""

  split, has_masks = 'train', False
  info = info.DatasetInfo('folder', ('thing',), 'background', info.color_map(2))

  def __init__(self, paths: list[Path]):
    """Names the files."""
    self.ids, self._paths = tuple(path.stem for path in paths), paths
    self.labels = np.ones((len(paths), 1), np.float32)

  def __len__(self) -> int:
    return len(self.ids)

  def example(self, index: int) -> dict[str, np.ndarray]:
    """An image and its label."""
    return info.make_example(images.read_image(self._paths[index]), self.labels, index)

  def mask(self, index: int) -> None:
    """There is none."""

  def size(self, index: int) -> tuple[int, int]:
    """(H, W) of an image."""
    return images.image_size(self._paths[index])

  def files(self, index: int) -> tuple[pathlib.Path, ...]:
    """The file of an image."""
    return (self._paths[index],)


def make_images(directory: Path, count: int) -> list[Path]:
  """Writes JPEGs of VOC's usual size; smooth noise packs about as photographs do."""
  from PIL import Image

  rng, paths = np.random.default_rng(0), []
  for number in range(count):
    layers = [
      np.asarray(
        Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((500, 375)), np.float32
      )
      for n in (6, 24, 96)
    ]
    picture = np.average(layers, axis=0, weights=(5, 3, 2)).astype(np.uint8)
    paths.append(directory / f'{number:04}.jpg')
    Image.fromarray(picture).save(paths[-1], quality=90)
  return paths


def ours(paths: list[Path], config: transforms.TransformConfig, batch: int) -> Iterator[Any]:
  """Our endless stream of batches."""
  return pipeline.train_batches(pipeline.Examples(Folder(paths)), config, batch_size=batch, seed=0)


def theirs(
  paths: list[Path], config: transforms.TransformConfig, batch: int, *, normalised: bool
) -> Iterator[Any]:
  """PyTorch's endless stream of batches."""
  import torch
  from PIL import Image
  from torchvision import transforms as vision

  torch.set_num_threads(1)
  jitter = vision.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
  mean, std = (np.array(x, np.float32) for x in (info.IMAGENET_MEAN, info.IMAGENET_STD))

  class Dataset(torch.utils.data.Dataset):
    """Reads and transforms an image."""

    def __len__(self) -> int:
      return len(paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
      rng = np.random.default_rng()
      with Image.open(paths[index]) as file:
        image = file.convert('RGB')
      scale = rng.integers(config.min_size, config.max_size + 1) / max(image.size)
      image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BICUBIC)
      if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      array = np.asarray(jitter(image))
      if normalised:
        array = (array / np.float32(255) - mean) / std
      size = config.crop
      taken, place = [], []
      for length in array.shape[:2]:
        start = int(rng.integers(abs(length - size) + 1))
        fits = length <= size
        taken.append(slice(0, length) if fits else slice(start, start + size))
        place.append(slice(start, start + length) if fits else slice(0, size))
      result = np.zeros((size, size, 3), array.dtype)
      result[tuple(place)] = array[tuple(taken)]
      return torch.from_numpy(result.transpose(2, 0, 1).copy()), torch.ones(1)

  loader = torch.utils.data.DataLoader(Dataset(), batch, shuffle=True, drop_last=True)
  while True:
    yield from loader


def measure(settings: argparse.Namespace, paths: list[Path]) -> list[dict[str, Any]]:
  """Measures all loaders with each recipe; see the columns above."""
  found = []
  for name in settings.recipe:
    config = RECIPES[name]
    arguments = paths, config, settings.batch
    streams = {'ours': ours(*arguments)}
    if _has_torch():
      streams['torch u8'] = theirs(*arguments, normalised=False)
      streams['torch'] = theirs(*arguments, normalised=True)
    rates = _rates(streams, settings)
    row = {'recipe': name, 'sizes': [config.min_size, config.max_size, config.crop], **rates}
    row |= {f'ours / {key}': rates['ours'] / rates[key] for key in rates if key != 'ours'}
    found.append(row)
    cells = [
      f'{key} {x:.2f}' if '/' in key else f'{key} {x:.1f}'
      for key, x in row.items()
      if isinstance(x, float)
    ]
    print(f'{name:>5}: ' + ', '.join(cells), flush=True)
  return found


def _has_torch() -> bool:
  try:
    import torchvision
  except (ImportError, RuntimeError) as error:  # A torchvision of another torch raises the latter.
    print(f'torch and torchvision failed to import: {error}')
    return False
  return bool(torchvision)


def _rates(streams: dict[str, Iterator[Any]], settings: argparse.Namespace) -> dict[str, float]:
  """Images a CPU second of each stream, in the median of turns after one that is not timed."""
  times = {name: [] for name in streams}
  for turn in range(settings.turns + 1):
    for name, stream in streams.items():
      seconds = _timed(lambda stream=stream: [next(stream) for _ in range(settings.batches)])
      if turn:
        times[name].append(seconds)
  count = settings.batches * settings.batch
  return {name: count / rows.median(mine) for name, mine in times.items()}


def _timed(run: Callable[[], Any]) -> float:
  start = time.process_time()
  run()
  # Threads that work ahead fill their buffers again, as they had done before the turn.
  while True:
    before = time.process_time()
    time.sleep(0.3)
    if time.process_time() - before < 0.02:
      return before - start


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
  """Reads the flags and prints the rows; returns them."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--recipe', nargs='+', choices=RECIPES, default=list(RECIPES))
  add('--images', type=Path, help='folder of .jpg; by default 64 made-up ones')
  add('--number', type=int, default=256, help='images of the folder at most')
  add('--batch', type=int, default=16)
  add('--batches', type=int, default=4, help='to a turn')
  add('--turns', type=int, default=5)
  add('--json', type=Path, help='also write the rows to this file')
  settings = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    if settings.images:
      paths = sorted(settings.images.glob('*.jpg'))[: settings.number]
    else:
      paths = make_images(Path(folder), 64)
    found = measure(settings, paths)
  if settings.json:
    settings.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  return found


if __name__ == '__main__':
  main()
