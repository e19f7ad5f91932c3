"""Scores maps that tell foreground from background: alone, and together with class priors."""

from __future__ import annotations

import numpy as np

from pnoc_jax import types
from pnoc_jax.metrics import thresholds

CLASSES = ('background', 'salient')


def sweep(
  saliency: np.ndarray,
  target: np.ndarray,
) -> thresholds.ScoreSums:
  """Scores one map at all thresholds: a pixel is salient where it is above the threshold.

  Args:
    saliency: f32[H, W] in [0, 1].
    target: int[H, W], a mask of classes: all but 0 and void are salient.

  Returns:
    ScoreSums over two classes.
  """
  return thresholds.sweep(
    np.arange(2),
    np.asarray(saliency, np.float32)[None],
    binary_target(target),
    num_classes=2,
  )


def binary_target(target: np.ndarray) -> np.ndarray:
  """u8[H, W]: 0 where a mask of classes is background, 1 where it is any class, or void."""
  return np.where(target == types.VOID, types.VOID, target > 0).astype(np.uint8)


def draw_classes(
  salient: np.ndarray,
  target: np.ndarray,
  *,
  num_classes: int,
  generator: np.random.Generator,
) -> np.ndarray:
  """Labels what is salient as a perfect classifier would: the "GT" columns of Table 3.

  A salient pixel takes its true class. Where that is the background, it takes a class that is drawn
  from those in the mask, or from all classes if the mask has none. All other pixels are background,
  those without a label too.

  Args:
    salient: bool[H, W].
    target: int[H, W], the mask.
    num_classes: C, the background included.
    generator: draws a class for each pixel.

  Returns:
    i64[H, W] of 0..C-1.
  """
  found = np.setdiff1d(target, (0, types.VOID))
  drawn = generator.choice(found if found.size else np.arange(1, num_classes), size=target.shape)
  classes = np.where(target == 0, drawn, target)
  return np.where(salient & (target != types.VOID), classes, 0).astype(np.int64)


def label_priors(keys: np.ndarray, high: np.ndarray, saliency: np.ndarray) -> np.ndarray:
  """The label map of priors whose background's score is `1 - saliency`; ties go to the background.

  Args:
    keys: i32[K+1], 0 and then the classes of the maps.
    high: f[K, H, W].
    saliency: f32[H, W] in [0, 1].

  Returns:
    i64[H, W].
  """
  background = 1 - np.asarray(saliency, np.float32)
  scores = np.concatenate([background[None], high], dtype=np.float32)
  return np.asarray(keys, np.int64)[np.argmax(scores, axis=0)]
