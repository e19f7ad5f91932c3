"""Draws the pictures of docs/troubleshooting.md from a drawn image and its true mask.

`python docs/pictures/symptoms.py` writes them beside itself. The maps are made from the mask, so
that each shows one symptom alone; a real report shows several at once.
"""

import pathlib

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.io import images
from pnoc_jax.ops import random_walk
from pnoc_jax.report import pictures

HERE = pathlib.Path(__file__).parent
SIDE, GAP = 160, 6


def _row(*panels: np.ndarray) -> np.ndarray:
  """Panels u8[h, w, 3] side by side, enlarged."""
  large = [x.repeat(SIDE // len(x), 0).repeat(SIDE // len(x), 1) for x in panels]
  gap = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
  return np.concatenate([x for panel in large for x in (panel, gap)][:-1], axis=1)


def _soft(mask: np.ndarray, sigma: float) -> np.ndarray:
  """A map f32[h, w] of maximum 1 that looks like a network's."""
  blurred = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
  return blurred / blurred.max()


def _walk(start: np.ndarray, edge: np.ndarray, exp_times: int) -> np.ndarray:
  """A map after the random walk, of maximum 1."""
  walked = random_walk.random_walk(
    jnp.asarray(start)[..., None], jnp.asarray(edge), exp_times=exp_times
  )
  return np.asarray(walked[..., 0] / walked.max())


def main() -> None:
  """Writes the pictures."""
  source = shapes.ShapesSource(info.ShapesConfig(val=40), 'val')
  index = next(i for i in range(len(source)) if source.labels[i].sum() == 1)
  image, part = source.example(index)['image'], source.part(index)
  body, head = part > 0, part == 2
  outline = ndimage.binary_dilation(body) & ~ndimage.binary_erosion(body)

  def shown(found: np.ndarray) -> np.ndarray:
    return pictures.overlay(image, np.clip(found, 0, 1).astype(np.float32))

  right = shown(_soft(body, 1.5))
  weak = np.random.default_rng(0).random(body.shape)
  wrong = {
    'weak': _soft(weak, 5) ** 2,
    'small': _soft(head, 2.0),
    'large': _soft(ndimage.binary_dilation(body, iterations=9), 4.0),
    'inverted': 1 - _soft(body, 1.5),
    'empty': np.zeros(body.shape),
    'leaking': _walk(_soft(head, 2.0), 0.15 * outline.astype(np.float32), 6),
  }
  for name, found in wrong.items():
    images.write_png(HERE / f'{name}.png', _row(image, right, shown(found)))


if __name__ == '__main__':
  main()
