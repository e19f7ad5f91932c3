"""Does what is said of priors without masks follow their mIoU? Asked where there are masks.

    python launch/run.py --config=configs/pnoc_shapes.py --config.until=generator --workdir=runs/a
    python benchmarks/proxy.py runs/a runs/b ... --split=val

Every checkpoint of each run's generator is looked at (`config.runtime.save_every` and `keep`). Its
network makes the priors of the split anew, in a directory of its own, and the proxy is taken of
them as of a split without masks. Below the table stands the rank correlation (Spearman) of each
column with mIoU over all networks: 1 where it orders them as mIoU does; its sign is turned where
low is good. The last column is that of `crf` by image with the images' own IoU, for one network:
whether the images that agree least are the worst.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine.runtime import Context, Runtime
from pnoc_jax.io import checkpoints, products, records, weights
from pnoc_jax.metrics import segmentation
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import files, results, tables
from pnoc_jax.stages import priors
from pnoc_jax.stages.common import proxy, scores

_LOW_IS_GOOD = ('undecided', 'erased')


def measure(workdir: Path, step: int, split: str, images: int) -> dict[str, Any]:
  """Measures the priors of a run's generator as it was after a step.

  Returns:
    Its name, the mIoU of its priors, what the proxy says of them, and how both agree by image.
  """
  config = files.from_dict(config_lib.PipelineConfig, records.read_object(workdir / 'config.json'))
  config.evaluation.proxy.images, config.priors.splits = images, (split,)
  mesh = meshes.make_mesh(jax.local_devices()[:1])
  runtime = Runtime(workdir, mesh, mesh, config.runtime)
  source = runtime.source(config.dataset, split)
  with tempfile.TemporaryDirectory() as directory:
    inputs = {name: Path(directory) / name for name in ('priors', 'generator')}
    _write_generator(workdir / 'generator', step, inputs['generator'])
    priors.run(Context('priors', config, inputs, inputs['priors'], runtime))
    look = scores.Split(source, config.seed, config.evaluation.crf, runtime, config)
    miou = scores.score_priors(look, inputs)['miou']
    found = proxy.measure(look, inputs)
    true = [_iou(source, image_id, inputs['priors'], config) for image_id in found['by_image']]
  by_image = rank_correlation(list(found['by_image'].values()), true)
  sure = {key: found[key] for key in results.PROXIES}
  return {'name': f'{workdir.name}, step {step}', 'miou': miou, **sure, 'by image': by_image}


def _write_generator(stage: Path, step: int, out: Path) -> None:
  """Makes of a checkpoint what the stage would have left if it had ended there."""
  variables: dict[str, Any] = {}
  for name, array in checkpoints.read_arrays(stage / 'checkpoints', step).items():
    *parents, last = name.split('/')
    if name.startswith(('generator/params/', 'generator/batch_stats/')):
      place = variables
      for parent in parents[1:]:
        place = place.setdefault(parent, {})
      place[last] = array
  weights.save(out, variables, meta=weights.load_meta(stage))
  shutil.copy(stage / records.DONE, out)


def _iou(
  source: info.Source, image_id: str, directory: Path, config: config_lib.PipelineConfig
) -> float:
  """IoU of an image's label map, cut where the proxy cuts it, with its mask."""
  index = source.ids.index(image_id)
  prior = products.read_prior(
    directory / source.split / f'{image_id}.npz',
    size=source.size(index),
    num_classes=source.info.num_classes,
    arrays=('high',),
  )
  maps, threshold = np.moveaxis(prior.high, 0, -1), config.evaluation.proxy.threshold
  labels = prior.keys[pseudo_labels.argmax_labels(maps, threshold)]
  return segmentation.image_iou(labels, source.mask(index))


def rank_correlation(a: list[float], b: list[float]) -> float | None:
  """Spearman's; equal values share the mean of their ranks. None where one has a single value."""
  if len(set(a)) < 2 or len(set(b)) < 2:
    return None
  return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: list[float]) -> np.ndarray:
  array = np.asarray(values)
  below = (array[:, None] > array).sum(axis=1)
  return below + ((array[:, None] == array).sum(axis=1) - 1) / 2


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('runs', nargs='+', type=Path)
  parser.add_argument('--split', default='val')
  parser.add_argument('--images', default=64, type=int, help='of the split, at equal distances')
  arguments = parser.parse_args()
  found = [
    measure(run, step, arguments.split, arguments.images)
    for run in arguments.runs
    for step in sorted(int(x.name) for x in (run / 'generator' / 'checkpoints').glob('[0-9]*'))
  ]
  found.sort(key=lambda row: -row['miou'])
  keys = ('miou', *results.PROXIES)
  rows = [
    (row['name'], *(row[key] for key in keys), tables.number(row['by image'], 2)) for row in found
  ]
  line = ['rank correlation with mIoU', '']
  for key in results.PROXIES:
    value = rank_correlation([row[key] for row in found], [row['miou'] for row in found])
    turned = -value if value is not None and key in _LOW_IS_GOOD else value
    line.append(tables.number(turned, 2))
  rows.append((*line, ''))
  print(tables.aligned(('network', *keys, 'by image'), rows, rule_before=len(rows) - 1))


if __name__ == '__main__':
  main()
