"""Measures a segmentation network while it trains."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnoc_jax.data import info
from pnoc_jax.data.streams import joins, pipeline
from pnoc_jax.engine import settings, trainer
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.metrics import segmentation
from pnoc_jax.parallel import arrays, sharding
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import segmentation as predict
from pnoc_jax.types import Variables


def make_measure(
  model: nn.Module,
  source: info.Source,
  config: settings.TrainingConfig,
  runtime: Runtime,
  *,
  targets: Mapping[str, joins.Maps | None],
) -> Callable[[Variables], dict[str, float]]:
  """Makes the in-training measurement: one scale, squares of `eval_size` px.

  Images are cut or squeezed to the square as `data.transforms.valid` does it for their training.

  Args:
    model: the network.
    source: the split to measure on.
    config: how much of it, and at what size.
    runtime: where to run.
    targets: what predictions are compared with, by the metrics' prefix; None for the masks.

  Returns:
    variables -> metrics named `<prefix>/miou` and `<prefix>/miou_fg`, in percent.
  """
  prepare, devices = trainer.make_prepare(source.info), runtime.local_mesh.size
  batch_size = -(-min(config.batch_size, len(source)) // devices) * devices
  names = (source.info.background, *source.info.classes)

  def forward(variables, batch):
    found = predict.logits(model, variables, prepare(batch)['image'])
    return jnp.argmax(found, -1).astype(jnp.uint8)

  forward = compiler.jit(forward, runtime.local_mesh, batch_args=(1,), outs=sharding.Layout.BATCH)

  def measure(variables: Variables) -> dict[str, float]:
    local = arrays.replicate(arrays.to_host(variables), runtime.local_mesh)
    totals = {prefix: segmentation.init_confusion(len(names)) for prefix in targets}
    # One stream a target, of the same images: they are read twice and segmented once.
    streams = [
      pipeline.valid_batches(
        source,
        size=config.eval_size,
        squeeze=config.transform.squeezes,
        batch_size=batch_size,
        target=target,
      )
      for target in targets.values()
    ]
    for number, found in enumerate(zip(*streams, strict=True)):
      if config.eval_batches and number >= config.eval_batches:
        break
      batch = {name: found[0][name] for name in ('image', 'box')}
      labels = np.asarray(forward(local, arrays.to_global(batch, runtime.local_mesh)))
      real = found[0]['weight'] > 0
      for prefix, part in zip(targets, found, strict=True):
        pair = (x[real].reshape(-1, config.eval_size) for x in (labels, part['mask']))
        totals[prefix] += segmentation.confuse(*pair, num_classes=len(names))
    result = {}
    for prefix, total in totals.items():
      scores = segmentation.score(total.counts, names)
      result |= {f'{prefix}/{name}': scores[name] for name in ('miou', 'miou_fg')}
    return result

  return measure
