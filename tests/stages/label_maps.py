"""Small images in memory, and the files that earlier stages would have made of them."""

from pathlib import Path

import jax
import numpy as np

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.io import images, products
from pnoc_jax.parallel import mesh as mesh_lib

CLASSES = ('ant', 'bee', 'cow', 'dog')
SIZES = ((21, 30), (32, 26), (20, 20), (18, 32))
PRESENT = ((2,), (0, 3), (), (1, 2))
"""Classes of the images, from 0; the third has none."""


class Memory:
  """A source of a few images; each has blobs of colour."""

  def __init__(self, split: str = 'train'):
    palette = info.color_map(len(CLASSES) + 1)
    self.info = info.DatasetInfo('memory', CLASSES, 'background', palette)
    self.split = split
    self.ids = tuple(f'{split}_{n}' for n in range(len(SIZES)))
    self.labels = np.zeros((len(SIZES), len(CLASSES)), np.float32)
    for row, present in enumerate(PRESENT):
      self.labels[row, list(present)] = 1
    self.has_masks = False

  def __len__(self) -> int:
    return len(self.ids)

  def size(self, index: int) -> tuple[int, int]:
    return SIZES[index]

  def example(self, index: int) -> dict[str, np.ndarray]:
    image = np.stack([smooth(SIZES[index], (index, channel)) for channel in range(3)], -1)
    return {'image': (255 * image).astype(np.uint8), 'label': self.labels[index], 'index': index}


class Runtime(Runtime):
  """A runtime whose data set is `Memory`."""

  def source(self, config, split, *, without=frozenset()):
    del config, without
    return Memory(split)


def make_runtime(workdir: Path, *, stop_after: int | None = None) -> Runtime:
  """On one device; `should_stop` is true from the given call on."""
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  asked = iter(range(10**6))
  stop = (lambda: False) if stop_after is None else (lambda: next(asked) + 1 >= stop_after)
  return Runtime(workdir, mesh, mesh, RuntimeConfig(), should_stop=stop)


def smooth(size: tuple[int, int], seed) -> np.ndarray:
  """A smooth random map f32[H, W] whose values fill [0, 1]."""
  rng = np.random.default_rng(seed)
  y, x = (np.linspace(0, 1, n) for n in size)
  f = rng.uniform(2, 7, 4)
  found = np.sin(f[0] * x + f[1] * y[:, None] + f[2]) * np.cos(f[3] * x - f[1] * y[:, None])
  found = found + rng.normal(0, 0.15, size)
  return ((found - found.min()) / np.ptp(found)).astype(np.float32)


def maps_of(index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """keys and f16[P, H, W] of an image, as a stage would have made."""
  keys = np.array([0, *(k + 1 for k in PRESENT[index])], np.int32)
  maps = [smooth(SIZES[index], (seed, index, k)) for k in keys[1:]]
  return keys, np.stack(maps).astype(np.float16)


def write_inputs(root: Path, splits: tuple[str, ...] = ('train', 'val')) -> dict[str, Path]:
  """Writes priors, walks and saliency of all images; returns the stages' directories."""
  for split in splits:
    source = Memory(split)
    for folder in ('saliency_priors', 'saliency'):
      (root / folder / split).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(source.ids):
      salient = smooth(SIZES[index], (7, index))
      grey = (255 * salient).astype(np.uint8)
      images.write_png(root / 'saliency' / split / f'{name}.png', grey)
      mask = np.where(salient > 0.5, 255, 0).astype(np.uint8)
      images.write_png(root / 'saliency_priors' / split / f'{name}.png', mask)
      if not PRESENT[index]:
        continue
      keys, high = maps_of(index)
      low = high[:, ::4, ::4].astype(np.float32)
      logits = np.zeros(len(CLASSES), np.float32)
      products.write_prior(root / 'priors' / split / f'{name}.npz', keys, low, high, logits)
      walk = maps_of(index, seed=1)[1]
      products.write_walk(root / 'random_walk' / split / f'{name}.npz', keys, walk)
  return {x: root / x for x in ('priors', 'random_walk', 'saliency', 'saliency_priors')}


def make_config() -> config_lib.PipelineConfig:
  """A config of which these stages read their own part, the splits and the seed."""
  return config_lib.PipelineConfig(name='memory')


def read_all(directory: Path) -> dict[str, bytes]:
  """Bytes of all files below a directory, by their names there."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in sorted(directory.rglob('*'))
    if path.is_file()
  }
