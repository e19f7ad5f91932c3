"""What the stage `c2am` asks of its network: quality in training, polarity after it."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.errors import UserError
from pnoc_jax.metrics import saliency, thresholds
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.parallel import arrays, hosts, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.types import Variables
from pnoc_jax.updates import c2am

# Of the measurement during training: 0.05, 0.10, ..., 0.50.
_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 11))


def make_prepare(dataset: info.DatasetInfo) -> Callable[[dict], dict]:
  """Makes the first operation on the device: normalised images, and hints f32[B, H, W, 1]."""
  normalise = trainer.make_prepare(dataset)

  def prepare(batch: dict) -> dict:
    batch = normalise(batch)
    if 'target' in batch:
      batch['hint'] = batch.pop('target')[..., None].astype(jnp.float32) / 255
    return batch

  return prepare


def make_measure(
  model: c2am_nn.C2AM, source: info.Source, config, runtime: Runtime, *, both: bool
) -> Callable[[Variables], dict[str, float]]:
  """Makes the measurement during training: 2-class IoU of the rectified, normalised map.

  On the map's grid, without test-time augmentation, best of ten thresholds. It informs people and
  chooses nothing.

  Args:
    model: the network.
    source: the split to measure on, with masks.
    config: of the stage: how much of it, at what size.
    runtime: where to run.
    both: also measure the inverted map, where it is not settled which part is the foreground.

  Returns:
    variables -> metrics named `eval/...`, in percent.
  """
  prepare = make_prepare(source.info)
  devices = runtime.local_mesh.size
  batch_size = -(-min(config.batch_size, len(source)) // devices) * devices
  forward = compiler.jit(
    lambda variables, batch: model.apply(variables, prepare(batch)['image'], train=False).logits,
    runtime.local_mesh,
    batch_args=(1,),
    outs=sharding.Layout.BATCH,
  )
  signs = {'': 1, '_inverted': -1} if both else {'': 1}

  def measure(variables: Variables) -> dict[str, float]:
    local = arrays.replicate(arrays.to_host(variables), runtime.local_mesh)
    sums = {name: thresholds.init_sums(2, _THRESHOLDS) for name in signs}
    stream = pipeline.valid_batches(
      source,
      size=config.eval_size,
      squeeze=config.transform.squeezes,
      batch_size=batch_size,
    )
    with stream:
      for number, batch in enumerate(stream):
        if config.eval_batches and number >= config.eval_batches:
          break
        inputs = {name: batch[name] for name in ('image', 'box')}
        logits = np.asarray(forward(local, arrays.to_global(inputs, runtime.local_mesh)))
        for name, sign in signs.items():
          sums[name] += thresholds.grid_sweep(
            sign * logits,
            np.ones((len(logits), 1)),
            saliency.binary_target(batch['mask']),
            box=batch['box'],
            weight=batch['weight'],
            thresholds=_THRESHOLDS,
          )
    result = {}
    for name, found in sums.items():
      best = thresholds.best_score(found, ('background', 'foreground'))
      for key in ('miou', 'miou_fg', 'threshold'):
        result[f'eval/{key}{name}'] = best[key]
    return result

  return measure


def polarity(
  model: c2am_nn.C2AM,
  variables: Variables,
  config,
  source: info.Source,
  hints: joins.Maps | None,
  runtime: Runtime,
  *,
  seed: int,
) -> dict[str, Any]:
  """Settles which part is the foreground, on one epoch of whole training images.

  Images are squeezed to the crop's square, so that a map's border is the image's. Without hints,
  what prevails at the borders is background. With hints the network has been told, and is asked.

  Differs from the reference: the border's mean over all training images decides, once; because its
  test looks at one image, at a step that many data sets never reach, and nothing reads the result.

  Args:
    model: the network.
    variables: its final variables.
    config: of the stage.
    source: the training images.
    hints: their hints, of C2AM-H.
    runtime: where to run.
    seed: of the order; only which images an incomplete batch drops depends on it.

  Returns:
    `inverted`: whether the network calls the background foreground; `border_mean`: mean
    probability at the images' borders; `hint_mean`: of hinted cells.

  Raises:
    UserError: no cell is hinted, or hinted cells are background to the network.
  """
  size, plain = config.transform.crop, copy.copy(config)
  plain.transform = transforms.TransformConfig(
    min_size=size, max_size=size, crop=size, flip=False, augment=transforms.Augment.NONE
  )
  prepare = make_prepare(source.info)

  def sums(variables, batch):
    batch = prepare(batch)
    logits = model.apply(variables, batch['image'], train=False).logits
    probability = jax.nn.sigmoid(logits)
    edge = _border(logits.shape[1:3], config.border)[None, :, :, None]
    found = {'border': (probability * edge).sum() / edge.sum() / len(logits)}
    if 'hint' in batch:
      hinted = c2am.on_grid(batch['hint'], logits) >= config.threshold
      found |= {'hinted': (probability * hinted).sum(), 'cells': hinted.sum()}
    return found

  sums = compiler.jit(sums, runtime.mesh, batch_args=(1,))
  placed = arrays.replicate(variables, runtime.mesh)
  steps = pipeline.steps_per_epoch(source, config.batch_size)
  batches = trainer.make_batches(plain, source, runtime, seed=seed, target=hints)
  with batches(0) as stream:
    found = [
      jax.tree.map(
        float, arrays.to_host(sums(placed, arrays.to_global(next(stream), runtime.mesh)))
      )
      for _ in range(steps)
    ]
  total = {name: sum(part[name] for part in found) for name in found[0]}
  facts = {'inverted': False, 'border_mean': total['border'] / steps}
  if hints is None:
    facts['inverted'] = facts['border_mean'] > 0.5
    part = 'its background: inverted' if facts['inverted'] else 'the foreground'
    said = f'the map shows {part} (mean probability {facts["border_mean"]:.2f} at the borders)'
  else:
    facts['hint_mean'] = _hint_mean(total, config)
    said = f'mean probability {facts["hint_mean"]:.2f} where priors hint at foreground'
  if hosts.is_main():
    print(f'  {said}', flush=True)
  return facts


def _border(shape: tuple[int, int], share: float) -> np.ndarray:
  """f32[h, w]: 1 where a cell lies in the outer `share` of a side, at least the outermost one."""
  near = []
  for length in shape:
    width = max(round(length * share), 1)
    cells = np.arange(length)
    near.append((cells < width) | (cells >= length - width))
  return (near[0][:, None] | near[1]).astype(np.float32)


def _hint_mean(total: dict[str, float], config) -> float:
  if not total['cells']:
    raise UserError(
      f'no prior of the training images reaches c2am.threshold = {config.threshold}, so nothing '
      'hints at foreground: lower it, or take --config.c2am.method=C2AM'
    )
  mean = total['hinted'] / total['cells']
  if mean <= config.min_hint_mean:
    raise UserError(
      f'the trained C2AM-H gives hinted cells a mean probability of {mean:.3f}, not above '
      f'c2am.min_hint_mean = {config.min_hint_mean}: it did not learn from its hints. Train longer '
      'or with a larger c2am.lambda_h (and --config.rerun=c2am), or accept it with a lower '
      '--config.c2am.min_hint_mean'
    )
  return mean
