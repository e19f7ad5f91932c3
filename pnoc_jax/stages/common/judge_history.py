"""What the judge of erased images sees of a few while a generator trains: the paper's Fig. 2."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.engine import per_image, programs, runtime
from pnoc_jax.errors import UserError
from pnoc_jax.io import atomic, images, records
from pnoc_jax.losses import forward
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import erase, resize
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.report import files
from pnoc_jax.types import Array, Batch, Variables

if TYPE_CHECKING:
  from pnoc_jax.stages.generator import GeneratorConfig

LOOKS = ('whole', 'soft', 'hard')
"""What the judge looks at: the whole image, the softly erased one, and the hard erased one."""


@flax.struct.dataclass
class Seen:
  """What a judge sees of images, of one class each.

  Attributes:
    soft: f32[B, H, W], the mask that fades the image in the generator's loss.
    hard: f32[B, H, W], 1 where the noc's update sets the image to the mean colour, else 0.
    maps: f32[B, 3, H, W], the judge's rectified map of the class in the images of `LOOKS`, over the
      maximum of its map of the whole image: 0 to 1 there, and more where an erased image has more.
    scores: f32[B, 3], the judge's sigmoid scores of the class.
  """

  soft: Array
  hard: Array
  maps: Array
  scores: Array


def see(
  judge: nn.Module,
  variables: Variables,
  image: Array,
  cam: Array,
  picked: Array,
  *,
  soft_mask: erase.Over = erase.Over.BATCH,
  threshold: float = 0.2,
  eps: float = 1e-5,
) -> Seen:
  """Shows a judge images, whole and erased as the generator's loss and the noc's do (Eqs. 2, 3).

  Args:
    judge: its network.
    variables: its parameters and running statistics.
    image: f32[B, H, W, C], normalised.
    cam: f32[B, h, w, K], the generator's raw maps of the images.
    picked: f32[B, K], one-hot of the class that is looked at and erased.
    soft_mask: over what the maximum that normalises the soft mask is taken; the batch is this one.
    threshold: delta_noc of the hard mask.
    eps: added to the maximum of the judge's map.
  """
  size = image.shape[1:3]
  soft = erase.class_mask(cam, picked, size=size, over=soft_mask)
  hard = erase.class_mask(cam, picked, size=size, over=erase.Over.IMAGE)
  erased = erase.erase_soft(image, soft), erase.erase_hard(image, hard, threshold=threshold)
  # The three of an image follow each other: on several devices none of them moves.
  shown = jnp.stack([image, *erased], 1).reshape(-1, *image.shape[1:])
  found = forward.evaluate(judge, variables, shown).astype(jnp.float32)
  ours = jnp.repeat(picked, len(LOOKS), 0)
  maps = resize.bilinear(jax.nn.relu((found * ours[:, None, None]).sum(-1, keepdims=True)), size)
  maps = maps.reshape(len(image), len(LOOKS), *size)
  scores = jax.nn.sigmoid((cam_ops.logits(found) * ours).sum(-1)).reshape(len(image), len(LOOKS))
  largest = maps[:, :1].max((2, 3), keepdims=True)
  above = (hard > threshold).astype(jnp.float32)
  return Seen(soft[..., 0], above[..., 0], maps / (largest + eps), scores)


def make_show(
  judge: nn.Module, dataset: info.DatasetInfo, config: 'GeneratorConfig', where: runtime.Runtime
) -> compiler.Compiled:
  """Makes the compiled `see`, on this process's devices.

  Args:
    judge: its network.
    dataset: its images, in the colours that the generator wants: the judge gets no others.
    config: of the training, which says how images are erased.
    where: to run.

  Returns:
    `(variables, batch) -> Seen`; the batch has `image` u8[B, S, S, C], `box` i32[B, 4], and `cam`
    and `picked` as of `see`.
  """
  prepare, soft_mask, threshold = programs.make_prepare(dataset), config.soft_mask, config.threshold

  def seen(variables: Variables, batch: Batch) -> Seen:
    return see(
      judge,
      variables,
      prepare(batch)['image'],
      batch['cam'],
      batch['picked'],
      soft_mask=soft_mask,
      threshold=threshold,
    )

  return compiler.jit(seen, where.local_mesh, ins=(REPLICATED, BATCH), outs=BATCH)


def make_keep(
  show: compiler.Compiled, source: info.Source, directory: Path
) -> Callable[[int, Sequence[int], Mapping[str, np.ndarray], Variables], dict[str, float]]:
  """Makes what writes what a judge sees of a few images at the end of an epoch.

  The maximum of soft masks is over these images, where in the training it is over those of a batch.

  Args:
    show: of `make_show`.
    source: the images.
    directory: of the training.

  Returns:
    `(epoch, indices, batch, variables) -> metrics`; the indices in the source of n images, the
    batch with their `image`, `box` and `cam` as of `make_show`, and the judge's variables. Metrics
    are the mean scores in percent, `eval/judge_whole` and so on; none where a score is NaN.
  """
  mesh = show.mesh

  def keep(
    epoch: int, indices: Sequence[int], batch: Mapping[str, np.ndarray], variables: Variables
  ) -> dict[str, float]:
    classes = [asked(source.labels[i]) for i in indices]
    given = {**batch, 'picked': np.eye(source.info.num_classes, dtype=np.float32)[classes]}
    # The last image fills the batch up, which changes no maximum.
    count = -len(indices) % mesh.size
    given = {k: np.concatenate([x, np.repeat(x[-1:], count, 0)]) for k, x in given.items()}
    placed = arrays.replicate(arrays.to_host(variables), mesh)
    found = jax.tree.map(np.asarray, show(placed, arrays.to_global(given, mesh)))
    names, written, scores = [source.ids[i] for i in indices], [], found.scores[: len(indices)]
    if not np.isfinite(scores).all():
      return {}  # The losses of the next steps say so.
    for i, name in enumerate(names):
      written.append(path(directory, epoch, source.split, name))
      squares = np.concatenate([found.soft[i], found.hard[i], *found.maps[i]])
      images.write_png(written[-1], np.round(255 * np.clip(squares, 0, 1)).astype(np.uint8))
    atomic.sync_folders(written)
    kept = {
      name: {'class': source.info.classes[k], **dict(zip(LOOKS, row.tolist(), strict=True))}
      for name, k, row in zip(names, classes, scores, strict=True)
    }
    records.write_json(_scores_path(directory, epoch, source.split), kept)
    means = 100 * scores.mean(0, dtype=np.float64)
    return {f'eval/judge_{x}': float(mean) for x, mean in zip(LOOKS, means, strict=True)}

  return keep


def asked(label: np.ndarray) -> int:
  """The class that a judge is asked for: the first of those that a label f32[K] marks."""
  return int(np.flatnonzero(label)[0])


def path(directory: Path, epoch: int, split: str, name: str) -> Path:
  """Where the squares of the image `name` after an epoch lie in the directory of a training.

  They lie below each other in one grey PNG: the soft mask, the hard mask, and the judge's maps of
  the images of `LOOKS`, all as `Seen` has them; what is above 1 counts as 1.
  """
  return per_image.image_path(_folder(directory, epoch), split, name)


def _folder(directory: Path, epoch: int) -> Path:
  return directory / files.JUDGED / f'{epoch:04d}'


def _scores_path(directory: Path, epoch: int, split: str) -> Path:
  """Of all images: by their names the `class` and the score of each of `LOOKS`, 0 to 1."""
  return _folder(directory, epoch) / f'{split}.json'


class Kept(NamedTuple):
  """What was kept of an image after an epoch.

  Attributes:
    name: of the class.
    masks: f32[2, S, S], soft and hard.
    maps: f32[3, S, S], of the images of `LOOKS`.
    scores: of these images, 0 to 1.
  """

  name: str
  masks: np.ndarray
  maps: np.ndarray
  scores: tuple[float, float, float]


def epochs(directory: Path, split: str) -> list[int]:
  """The epochs of which something was kept in the directory of a training, in order."""
  there = (directory / files.JUDGED).glob('*')
  found = [int(x.name) for x in there if x.name.isdecimal()]
  return sorted(epoch for epoch in found if _scores_path(directory, epoch, split).is_file())


def names(directory: Path, epoch: int, split: str) -> list[str]:
  """The images of which something was kept after an epoch, in the order of the split."""
  try:
    found = records.read_json(_scores_path(directory, epoch, split))
  except UserError:
    return []
  return list(found) if isinstance(found, dict) else []


def read(directory: Path, epoch: int, split: str, name: str) -> Kept | None:
  """Reads what was kept of an image after an epoch; None where it is not there, or damaged."""
  try:
    row = records.read_json(_scores_path(directory, epoch, split))[name]
    squares = images.read_mask(path(directory, epoch, split, name)).astype(np.float32) / 255
    side = squares.shape[1]
    squares = squares.reshape(2 + len(LOOKS), side, side)
    whole, soft, hard = (float(row[x]) for x in LOOKS)
    return Kept(str(row['class']), squares[:2], squares[2:], (whole, soft, hard))
  except (UserError, OSError, KeyError, TypeError, ValueError):
    return None
