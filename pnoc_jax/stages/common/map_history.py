"""How the maps of a few images change while a network trains, for the report."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import measure, per_image, programs, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.io import atomic, images
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.report import files
from pnoc_jax.stages.common import cam_program, judge_history

IMAGES = 6
"""So many images are looked at, at equal distances among those that have a label."""


def path(directory: Path, epoch: int, split: str, name: str) -> Path:
  """Where the map of the image `name` after an epoch lies in the directory of a training."""
  return per_image.image_path(directory / files.HISTORY / f'{epoch:04d}', split, name)


def chosen(source: info.Source) -> list[int]:
  """Indices of the images that are looked at; neither masks nor maps have a part in it."""
  labelled = pipeline.labelled(source)
  places = np.linspace(0, len(labelled) - 1, min(len(labelled), IMAGES)).round()
  return labelled[places.astype(int)].tolist()


def largest(cam: np.ndarray, label: np.ndarray, *, eps: float = 1e-5) -> np.ndarray:
  """The largest of an image's maps, each over its own maximum as the priors are.

  Args:
    cam: f32[h, w, K], raw maps.
    label: f32[K]; of the classes that it marks.
    eps: added to each maximum.

  Returns:
    u8[h, w], 0..255.
  """
  maps = np.maximum(cam[..., label > 0], 0)
  return np.round(255 * (maps / (maps.max(axis=(0, 1)) + eps)).max(axis=-1)).astype(np.uint8)


def make_keep(
  forward: compiler.Compiled,
  show: compiler.Compiled | None,
  source: info.Source,
  config: settings.CamTrainingConfig,
  examples: pipeline.Examples,
  context: Context,
) -> Callable[[int, cam_program.Measured], dict[str, float]]:
  """Makes what writes the maps of a few images, and what a judge sees of them, after an epoch.

  The images go through the network as in a measurement, by the same compiled program: one scale, no
  mirror image, a square of `eval_size` px.

  Args:
    forward: of `measure.make_forward`, the first of whose arrays are raw maps f32[B, h, w, K].
    show: of `judge_history.make_show`; None without a judge, and then nothing is kept of it.
    source: the images.
    config: the training's settings.
    examples: what trains; tells the length of an epoch.
    context: of the stage that trains.

  Returns:
    `(step, measured) -> metrics`: those of `judge_history.make_keep`.
  """
  mesh, indices = context.runtime.local_mesh, chosen(source)
  count, length = measure.rows(config, source, mesh), programs.horizon(config, examples).epoch
  keep_judged = judge_history.make_keep(show, source, context.out) if show else None

  def keep(step: int, measured: cam_program.Measured) -> dict[str, float]:
    placed = arrays.replicate(arrays.to_host(measured.generator), mesh)
    epoch, written, batches = step // length, [], []
    for start in range(0, len(indices), count):
      part = indices[start : start + count]
      # The last batch is filled up with its last image.
      squares = [square(source, config, i) for i in (part + part[-1:] * count)[:count]]
      image, box = (np.stack(x) for x in zip(*squares, strict=True))
      cam = np.asarray(forward(placed, arrays.to_global({'image': image, 'box': box}, mesh))[0])
      for index, found in zip(part, cam):
        file = path(context.out, epoch, source.split, source.ids[index])
        images.write_png(file, largest(found, source.labels[index]))
        written.append(file)
      batches.append({'image': image, 'box': box, 'cam': cam})
    atomic.sync_folders(written)
    if keep_judged is None or measured.judge is None or not indices:
      return {}
    names = ('image', 'box', 'cam')
    batch = {k: np.concatenate([x[k] for x in batches])[: len(indices)] for k in names}
    return keep_judged(epoch, indices, batch, measured.judge)

  return keep


def square(
  source: info.Source, config: settings.CamTrainingConfig, index: int
) -> tuple[np.ndarray, np.ndarray]:
  """An image as it is measured, u8[S, S, C], and the box i32[4] of its content, which is all."""
  image, box, _ = transforms.valid(
    source.example(index)['image'],
    None,
    size=config.eval_size,
    squeeze=config.transform.squeezes,
    tones=config.transform.tones,
  )
  return image, box
