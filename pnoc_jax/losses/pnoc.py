"""The losses of P-NOC, Eqs. 1 to 3: pure functions of a network's params, ready for `jax.grad`.

Each returns the loss and what differentiation carries along: new running statistics, metrics.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.losses import area, forward, multilabel, puzzle
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import erase, label_split
from pnoc_jax.ops import puzzle as puzzle_ops
from pnoc_jax.types import Array, Batch, Metrics, PyTree, Variables


class Views(enum.Enum):
  """What the noc learns from.

  Attributes:
    ERASED: each image without what the generator's map of one class covers; the noc is told that
      the class is there (Eq. 3).
    CONTRAST: each image whole; without what that map covers, and told that the class is gone; and
      without what the map of another image covers, told that all its classes are there. So neither
      what surrounds an object nor the outline of what was cut out stands for its class.
  """

  ERASED = 'erased'
  CONTRAST = 'contrast'

  @property
  def count(self) -> int:
    """Views of an image."""
    return 1 if self is Views.ERASED else 3


@dataclasses.dataclass(frozen=True)
class Terms:
  """How the terms of the losses are computed; the noc's takes the first three.

  Attributes:
    smoothing: label smoothing alpha of every classification target.
    class_weight: f32[K] factors of the classes in every classification term, or None. As in the
      reference, the terms of erased images and of the noc are weighted, too.
    noc_views: what the noc learns from.
    reconstruct: the reconstruction loss, `(cam, cam_re, label) -> f32[]`, its options bound.
    lambda_conf: weight of the confidence loss of the tiles.
    lambda_area: weight of the area of the maps.
    soft_mask: over what the maximum that normalises the soft mask is taken.
    strategy: how the erased class of each image is picked.
  """

  smoothing: float = 0.0
  class_weight: Array | np.ndarray | None = None
  noc_views: Views = Views.ERASED
  reconstruct: Callable[[Array, Array, Array], Array] = puzzle.reconstruction_loss
  lambda_conf: float = 0.0
  lambda_area: float = 0.0
  soft_mask: erase.Over = erase.Over.BATCH
  strategy: label_split.Strategy = label_split.Strategy.RANDOM


class Judge(NamedTuple):
  """The classifier that looks at erased images, fixed within the generator's step.

  Attributes:
    model: its network.
    variables: its parameters and running statistics.
    picked: f32[B, K], one-hot of the class r that is erased from each image.
    weight: f32[], lambda_cse.
  """

  model: nn.Module
  variables: Variables
  picked: Array
  weight: Array | float = 1.0


class Seen(NamedTuple):
  """What the generator's loss saw on its way.

  Attributes:
    cam: f32[B, h, w, K], raw maps of the full images.
    judged: f32[B, K], the judge's logits of the erased images, or None without a judge.
  """

  cam: Array
  judged: Array | None


@flax.struct.dataclass
class Erasure:
  """What the generator's update leaves for the noc's.

  Attributes:
    cam: f32[B, h, w, K], the maps of the full images *before* the generator's step, detached.
    picked: f32[B, K], one-hot of the class r erased from each image.
    leak: gradients of the generator's loss with respect to the noc's params, or None.
  """

  cam: Array
  picked: Array
  leak: PyTree | None = None


def generator_loss(
  params: PyTree,
  batch_stats: PyTree,
  batch: Batch,
  *,
  model: nn.Module,
  lambda_re: Array | float | None = None,
  judge: Judge | None = None,
  terms: Terms = Terms(),
) -> tuple[Array, tuple[PyTree, Metrics, Seen]]:
  """The generator's loss (Eqs. 1 and 2).

  `l(z, y) + l(z_re, y) + lambda_re L_re + lambda_cse l(z_noc, y without r)`; z are means of the
  maps of the image, z_re of those of its tiles, z_noc the judge's logits of the image without what
  the maps of class r cover.

  Args:
    params: of the generator f.
    batch_stats: its running statistics.
    batch: `image` f32[B, H, W, C] normalised, `label` f32[B, K] multi-hot.
    model: the network of f.
    lambda_re: weight of the reconstruction loss; None leaves the tiles out (as OC-CSE does).
    judge: who judges erased images; None leaves erasing out (as Puzzle-CAM does).
    terms: how the terms are computed.

  Returns:
    The loss f32[]; the new running statistics, the terms by name, and what else was seen.
  """
  image, label = batch['image'], batch['label']
  target = multilabel.smooth_label(label, terms.smoothing)

  def classify(logits: Array, target: Array) -> Array:
    return multilabel.multilabel_loss(logits, target, class_weight=terms.class_weight)

  cam, batch_stats = forward.train(model, params, batch_stats, image)
  metrics = {'loss/cls': classify(cam_ops.logits(cam), target)}
  total = metrics['loss/cls']
  if terms.lambda_area:
    metrics['loss/area'] = area.area_loss(cam, label)
    total = total + terms.lambda_area * metrics['loss/area']
  if lambda_re is not None:
    # As the reference: a second pass of the same network; both passes move the statistics.
    tiles, batch_stats = forward.train(model, params, batch_stats, puzzle_ops.tile(image))
    cam_re = puzzle_ops.merge(tiles)
    metrics['loss/cls_re'] = classify(cam_ops.logits(cam_re), target)
    metrics['loss/re'] = terms.reconstruct(cam, cam_re, label)
    total = total + metrics['loss/cls_re'] + lambda_re * metrics['loss/re']
    if terms.lambda_conf:
      metrics['loss/conf'] = puzzle.confidence_loss(cam_ops.logits(tiles))
      total = total + terms.lambda_conf * metrics['loss/conf']
  judged = None
  if judge is not None:
    # As the reference: no stop-gradient, neither through the mask nor through its maximum.
    mask = erase.class_mask(cam, judge.picked, size=image.shape[1:3], over=terms.soft_mask)
    erased = erase.erase_soft(image, mask)
    judged = cam_ops.logits(forward.evaluate(judge.model, judge.variables, erased))
    rest = multilabel.smooth_label(jnp.maximum(label - judge.picked, 0.0), terms.smoothing)
    metrics['loss/cse'] = classify(judged, rest)
    total = total + judge.weight * metrics['loss/cse']
  return total, (batch_stats, metrics, Seen(cam, judged))


def noc_loss(
  params: PyTree,
  batch_stats: PyTree,
  batch: Batch,
  *,
  model: nn.Module,
  erasure: Erasure,
  lambda_noc: Array | float = 1.0,
  threshold: float = 0.2,
  terms: Terms = Terms(),
) -> tuple[Array, tuple[PyTree, Metrics]]:
  """The noc's loss (Eq. 3): find the class in what the generator left of it.

  The erased image is a constant: no gradient reaches the generator. The target is the full label,
  for the erased class is still in the image; `terms.noc_views` has another way.

  Args:
    params: of the not-so-ordinary classifier.
    batch_stats: its running statistics.
    batch: as of `generator_loss`.
    model: its network, BatchNorm frozen.
    erasure: the generator's maps and the class picked of each image.
    lambda_noc: weight of the loss.
    threshold: delta_noc; pixels whose mask is above it are erased.
    terms: the label smoothing of the target, the classes' factors, and what the noc sees.

  Returns:
    The loss f32[]; the new running statistics and the metrics.
  """
  image, label = batch['image'], batch['label']
  # As the reference: the mask of the generator as it was before its step of this batch.
  mask = erase.class_mask(erasure.cam, erasure.picked, size=image.shape[1:3], over=erase.Over.IMAGE)
  erased = erase.erase_hard(image, mask, threshold=threshold)
  if terms.noc_views is Views.CONTRAST:
    other = erase.erase_hard(image, jnp.roll(mask, 1, axis=0), threshold=threshold)
    # The three of an image follow each other: on several devices none of them moves.
    erased = jnp.stack([image, erased, other], 1).reshape(-1, *image.shape[1:])
    rest = jnp.maximum(label - erasure.picked, 0.0)
    label = jnp.stack([label, rest, label], 1).reshape(-1, label.shape[1])
  erased = jax.lax.stop_gradient(erased)
  cam, batch_stats = forward.train(model, params, batch_stats, erased)
  target = multilabel.smooth_label(label, terms.smoothing)
  loss = lambda_noc * multilabel.multilabel_loss(
    cam_ops.logits(cam), target, class_weight=terms.class_weight
  )
  return loss, (batch_stats, {'loss/noc': loss})
