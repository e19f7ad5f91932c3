"""From scores to label maps: thresholds, and the rules that leave doubtful pixels open.

Inside an image, classes are numbered by its own scores: 0 background, 1..P its P present classes.
`to_classes` turns these numbers into those of the data set. A CRF, where there is one, goes between
`argmax_labels` and the rules.

The label maps' functions answer in the kind of array that they get: with numpy arrays they run on
the host, where images of a hundred sizes compile nothing.
"""

import chex
import jax.numpy as jnp

from pnoc_jax import types

UNKNOWN = 255


def argmax_labels(scores: types.AnyArray, background: types.AnyArray | float) -> types.AnyArray:
  """Returns the class of the largest score, or background where none exceeds the background's.

  Args:
    scores: f32[..., H, W, P], of the present classes; all 0 for a class that only fills up.
    background: The background's score: a constant threshold, or f32[..., H, W], e.g.
      `salient_background`.

  Returns:
    i32[..., H, W] in 0..P; equal scores give the lower number.
  """
  xp = scores.__array_namespace__()
  scores = scores.astype(xp.float32)
  threshold = xp.broadcast_to(xp.asarray(background, dtype=xp.float32), scores.shape[:-1])
  return xp.argmax(xp.concatenate([threshold[..., None], scores], -1), -1).astype(xp.int32)


def salient_background(
  saliency: types.AnyArray, *, threshold: float | None = None
) -> types.AnyArray:
  """Returns the background's score where a saliency map tells what is foreground.

  Differs from the reference: `1 - saliency` everywhere; because its pseudo masks take the saliency
  itself, which makes the foreground background.

  Args:
    saliency: f32[..., H, W], in [0, 1].
    threshold: If given, the score is 1 below it and 0 from it on.

  Returns:
    f32[..., H, W].
  """
  if threshold is None:
    return 1.0 - saliency.astype('float32')
  return (saliency < threshold).astype('float32')


def mask_labels(labels: types.AnyArray, salient: types.AnyArray) -> types.AnyArray:
  """Returns the labels of salient pixels, and background elsewhere: what the second CRF refines.

  Args:
    labels: i32[..., H, W], from `argmax_labels`.
    salient: bool[..., H, W], after the first CRF.

  Returns:
    i32[..., H, W].
  """
  chex.assert_equal_shape([labels, salient])
  return labels.__array_namespace__().where(salient, labels, 0)


def affinity_labels(foreground: types.AnyArray, background: types.AnyArray) -> types.AnyArray:
  """Returns labels to train affinities with, from two label maps of the same scores (IRNet).

  Args:
    foreground: i32[..., H, W], labels at a high threshold, after CRF: trusted where not 0.
    background: i32[..., H, W], labels at a low threshold, after CRF: trusted where 0.

  Returns:
    i32[..., H, W]: the class, 0 where both maps say background, 255 where only the first does.
  """
  chex.assert_equal_shape([foreground, background])
  xp = foreground.__array_namespace__()
  return xp.where(foreground == 0, xp.where(background == 0, 0, UNKNOWN), foreground)


def salient_affinity_labels(labels: types.AnyArray, salient: types.AnyArray) -> types.AnyArray:
  """Returns labels to train affinities with, where saliency tells the background (Sec. 3.3.1).

  Args:
    labels: i32[..., H, W], `mask_labels` after CRF.
    salient: bool[..., H, W], after CRF.

  Returns:
    i32[..., H, W]: the class, also where the CRF has spread it beyond the salient pixels; 255 where
    a salient pixel has none; 0 elsewhere.
  """
  chex.assert_equal_shape([labels, salient])
  xp = labels.__array_namespace__()
  return xp.where(labels == 0, xp.where(salient, UNKNOWN, 0), labels)


def to_classes(labels: types.AnyArray, keys: types.AnyArray) -> types.AnyArray:
  """Returns the data set's numbers for an image's own, and leaves 255.

  Args:
    labels: i32[..., H, W], in 0..P or 255.
    keys: i32[P + 1], 0 and the present classes; for a batch, map over it.

  Returns:
    i32[..., H, W].
  """
  chex.assert_rank(keys, 1)
  xp = labels.__array_namespace__()
  found = keys[xp.minimum(labels, keys.shape[0] - 1)]
  return xp.where(labels == UNKNOWN, UNKNOWN, found).astype(xp.int32)


def normalize_walk(walk: types.Array) -> types.Array:
  """Returns the scores divided by their largest, over all classes at once.

  As the reference: a class of low scores stays low beside another, unlike in the priors, where each
  is divided by its own maximum. Cells that are padding must be 0.

  Args:
    walk: f32[..., h, w, P], of one image in the last three axes.

  Returns:
    f32[..., h, w, P], at most 1; 0 where an image has no positive score.
  """
  walk = walk.astype(jnp.float32)
  largest = walk.max((-3, -2, -1), keepdims=True)
  # Differs from the reference: nothing but zeros stays so; because there it is not a number.
  return jnp.where(largest > 0, walk / jnp.where(largest > 0, largest, 1.0), 0.0)
