"""From scores to label maps: thresholds, and the rules that leave doubtful pixels open.

Within an image, 0 is the background and 1..P are its P present classes, in the order of its scores;
`to_classes` turns these numbers into those of the data set. A CRF may refine the label maps between
`argmax_labels` and the rules.

These functions return the kind of array that they are given. With numpy arrays they run on the
host, where images of many sizes cause no compilation.
"""

import chex
import jax.numpy as jnp

from pnoc_jax import types


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


def salient_background(saliency: types.AnyArray) -> types.AnyArray:
  """Returns the background's score where a saliency map tells what is foreground.

  Differs from the reference: the background's score is `1 - saliency` everywhere; because its
  pseudo masks take the saliency itself, which makes the foreground background.

  Args:
    saliency: f32[..., H, W], in [0, 1].

  Returns:
    f32[..., H, W].
  """
  return 1.0 - saliency.astype('float32')


def mask_labels(labels: types.AnyArray, salient: types.AnyArray) -> types.AnyArray:
  """Keeps the labels of salient pixels, and makes all others background, for the second CRF.

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
  return xp.where(foreground == 0, xp.where(background == 0, 0, types.VOID), foreground)


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
  return xp.where(labels == 0, xp.where(salient, types.VOID, 0), labels)


def to_classes(labels: types.AnyArray, keys: types.AnyArray) -> types.AnyArray:
  """Turns an image's own class numbers into those of the data set; 255 stays.

  Args:
    labels: i32[..., H, W], in 0..P or 255.
    keys: i32[P + 1], 0 and the present classes; for a batch, map over it.

  Returns:
    i32[..., H, W].
  """
  chex.assert_rank(keys, 1)
  xp = labels.__array_namespace__()
  found = keys[xp.minimum(labels, keys.shape[0] - 1)]
  return xp.where(labels == types.VOID, types.VOID, found).astype(xp.int32)


def normalize_walk(walk: types.Array) -> types.Array:
  """Returns the scores divided by their largest, over all classes at once.

  As in the reference, a class of low scores stays low beside another one: a walk moves scores and
  leaves their scale, so the numbers of one image are comparable with each other and not with those
  of another image. The result is what a background score, such as 0.25, is compared with. In the
  priors, each class is divided by its own maximum. Cells of the padding must be 0.

  Args:
    walk: f32[..., h, w, P], of one image in the last three axes.

  Returns:
    f32[..., h, w, P], at most 1; 0 where an image has no positive score.
  """
  walk = walk.astype(jnp.float32)
  largest = walk.max((-3, -2, -1), keepdims=True)
  # Differs from the reference: a walk's scores that are all 0 stay 0; because there they are NaN.
  return jnp.where(largest > 0, walk / jnp.where(largest > 0, largest, 1.0), 0.0)
