"""Which part of C2AM's map is the foreground: asked once, of the trained network."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from pnoc_jax.data.augment import transforms
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import loop, programs
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Context
from pnoc_jax.errors import UserError
from pnoc_jax.losses import c2am as losses
from pnoc_jax.losses import forward
from pnoc_jax.nn import c2am as c2am_nn
from pnoc_jax.parallel import arrays, hosts
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.types import Array, Batch, Variables

if TYPE_CHECKING:
  from pnoc_jax.stages.c2am import C2amConfig


def polarity(
  model: c2am_nn.C2AM,
  variables: Variables,
  config: 'C2amConfig',
  examples: pipeline.Examples,
  prepare: programs.Prepare,
  context: Context,
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
    examples: the training images, with the hints of C2AM-H as their target.
    prepare: the training's first operation on the device.
    context: of the stage; only which images an incomplete batch drops depends on its seed.

  Returns:
    `inverted`: whether the network calls the background foreground; `border_mean`: mean
    probability at the images' borders; `hint_mean`: of hinted cells.

  Raises:
    UserError: no cell is hinted, or hinted cells are background to the network.
    Interrupted: a signal asked a process to stop.
  """
  total, steps = _sums(model, variables, config, examples, prepare, context)
  facts = {'inverted': False, 'border_mean': total['border'] / steps}
  if examples.target is None:
    facts['inverted'] = facts['border_mean'] > 0.5
    part = 'its background: inverted' if facts['inverted'] else 'the foreground'
    said = f'the map shows {part} (mean probability {facts["border_mean"]:.2f} at the borders)'
  else:
    facts['hint_mean'] = _hint_mean(total, config)
    said = f'mean probability {facts["hint_mean"]:.2f} where priors hint at foreground'
  if hosts.is_main():
    print(f'  {said}', flush=True)
  return facts


def _sums(
  model: c2am_nn.C2AM,
  variables: Variables,
  config: 'C2amConfig',
  examples: pipeline.Examples,
  prepare: programs.Prepare,
  context: Context,
) -> tuple[dict[str, float], int]:
  """Sums of probabilities over the batches of an epoch, and how many batches these are."""
  size = config.transform.crop
  mesh = context.runtime.training_mesh(config.batch_size)

  def look(variables: Variables, batch: Batch) -> dict[str, Array]:
    batch = prepare(batch)
    logits = forward.evaluate(model, variables, batch['image']).logits
    probability = jax.nn.sigmoid(logits)
    edge = border(logits.shape[1:3], config.border)[None, :, :, None]
    found = {'border': (probability * edge).sum() / edge.sum() / len(logits)}
    if 'hint' in batch:
      hinted = losses.on_grid(batch['hint'], logits) >= config.threshold
      found |= {'hinted': (probability * hinted).sum(), 'cells': hinted.sum()}
    return found

  compiled = compiler.jit(look, mesh, ins=(REPLICATED, BATCH))
  placed = arrays.replicate(variables, mesh)
  whole = transforms.TransformConfig(
    min_size=size, max_size=size, crop=size, flip=False, augment=transforms.Augment.NONE
  )
  steps = examples.steps_per_epoch(config.batch_size)
  stream = pipeline.train_batches(
    dataclasses.replace(examples, mix=None),
    whole,
    batch_size=config.batch_size,
    seed=context.seed,
    share=trainer.share(context.runtime, config.batch_size),
  )
  total: dict[str, float] = {}
  with stream:
    for _ in range(steps):
      # All processes leave at the same batch, or those that go on wait for the others.
      if hosts.any_host(context.runtime.should_stop()):
        raise loop.Interrupted(0, f'the look at {context.name} begins again')
      part = arrays.to_host(compiled(placed, arrays.to_global(next(stream), mesh)))
      total = {name: total.get(name, 0) + float(x) for name, x in part.items()}
  return total, steps


def border(shape: tuple[int, int], share: float) -> np.ndarray:
  """f32[h, w]: 1 where a cell lies in the outer `share` of a side, at least the outermost one."""
  near = []
  for length in shape:
    width = max(round(length * share), 1)
    cells = np.arange(length)
    near.append((cells < width) | (cells >= length - width))
  return (near[0][:, None] | near[1]).astype(np.float32)


def _hint_mean(total: dict[str, float], config: 'C2amConfig') -> float:
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
