"""Photographs on an accelerator: a small set as arrays, and its training views made there."""

from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.io import images

SIDE = 320  # Longest side of a photograph, px.
_JITTER, _HUE = 0.3, 0.1


class Photographs(NamedTuple):
  """One split: images u8[N, S, S, 3] in the top-left corner, edges repeated; the rest by image."""

  image: np.ndarray
  size: np.ndarray
  label: np.ndarray
  mask: list[np.ndarray]

  def take(self, rows: np.ndarray) -> 'Photographs':
    """Some of them."""
    return Photographs(
      self.image[rows], self.size[rows], self.label[rows], [self.mask[i] for i in rows]
    )


def read(root: Path, split: str, *, most: int | None = None) -> tuple[Photographs, list[str]]:
  """Reads a split of a directory in the project's own layout; returns it and all class names."""
  classes = (root / 'classes.txt').read_text(encoding='utf-8').split()
  lines = (root / 'image_labels.csv').read_text(encoding='utf-8').splitlines()[1:]
  labels = dict(line.split(',', 1) for line in lines)
  names = (root / 'splits' / f'{split}.txt').read_text(encoding='utf-8').split()[:most]

  def one(name: str):
    image = images.read_image(root / 'images' / f'{name}.jpg')
    mask = images.read_mask(root / 'masks' / f'{name}.png')
    room = [(0, SIDE - n) for n in image.shape[:2]]
    label = [float(c in labels[name].split()) for c in classes[1:]]
    return np.pad(image, (*room, (0, 0)), mode='edge'), image.shape[:2], label, mask

  with futures.ThreadPoolExecutor() as pool:
    image, size, label, mask = zip(*pool.map(one, names), strict=True)
  size, label = np.array(size, np.int32), np.array(label, np.float32)
  return Photographs(np.stack(image), size, label, list(mask)), classes


def augment(key, image, size, *, crop: int, sizes: tuple[int, int]):
  """The training view of one image: f32[crop, crop, 3] in 0..255, and its box i32[4]."""
  draw = iter(jax.random.split(key, 12))
  long = jax.random.randint(next(draw), (), sizes[0], sizes[1] + 1)
  new = jnp.maximum(jnp.round(size * (long / size.max())), 1).astype(jnp.int32)
  slack = new - crop
  start = jnp.floor(jax.random.uniform(next(draw), (2,)) * (jnp.abs(slack) + 1)).astype(jnp.int32)
  first = jnp.where(slack >= 0, 0, start)
  shift = jnp.where(slack >= 0, -start, start)
  view = jax.image.scale_and_translate(
    image.astype(jnp.float32),
    (crop, crop, 3),
    (0, 1),
    new / size,
    shift.astype(jnp.float32),
    method='cubic',
  )
  last = jnp.minimum(first + new, crop)
  mirrored = jax.random.bernoulli(next(draw))
  view = jnp.where(mirrored, view[:, ::-1], view)
  left = jnp.where(mirrored, crop - last[1], first[1])
  right = jnp.where(mirrored, crop - first[1], last[1])
  # Colours, of the crop rather than of the whole image.
  gray = jnp.array([0.299, 0.587, 0.114])

  def factor():
    return 1.0 + _JITTER * jax.random.uniform(next(draw), minval=-1.0)

  view = jnp.clip(view, 0.0, 255.0)
  view = jnp.clip(view * factor(), 0.0, 255.0)
  mean = (view @ gray).mean()
  view = jnp.clip(mean + (view - mean) * factor(), 0.0, 255.0)
  one = (view @ gray)[..., None]
  view = jnp.clip(one + (view - one) * factor(), 0.0, 255.0)
  angle = 2 * jnp.pi * _HUE * jax.random.uniform(next(draw), minval=-1.0)
  yiq = jnp.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  turn = jnp.eye(3).at[1:, 1:].set(jnp.array([[cos, -sin], [sin, cos]]))
  view = jnp.clip(view @ (jnp.linalg.inv(yiq) @ turn @ yiq).T, 0.0, 255.0)
  return view, jnp.stack([first[0], left, last[0], right])
