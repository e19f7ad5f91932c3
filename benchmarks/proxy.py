"""Does what is said of priors without masks follow their mIoU? Asked where there are masks.

    python benchmarks/proxy.py runs/a runs/b runs/c ...

Each run has its priors (`--config.until=priors`), and a split with masks whose priors were scored.
The proxy is taken of some images of that split as of a split without masks. Below the table stands
the rank correlation (Spearman) of each column with mIoU over the runs: 1 where it orders them as
mIoU does, with its sign turned where low is good. The last column is that of `crf` by image with
the images' own IoU, within a run: whether the images that agree least are the worst.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax import config as config_lib
from pnoc_jax.data import info
from pnoc_jax.engine.runtime import Runtime
from pnoc_jax.io import products, records
from pnoc_jax.metrics import segmentation
from pnoc_jax.ops import pseudo_labels
from pnoc_jax.parallel import mesh as meshes
from pnoc_jax.report import files, results, tables
from pnoc_jax.stages.common import proxy, scores

_LOW_IS_GOOD = ('undecided', 'erased')


def measure(workdir: Path, split: str, images: int) -> dict[str, Any]:
  """mIoU of a run's priors, what the proxy says of them, and how both agree by image."""
  config = files.from_dict(config_lib.PipelineConfig, records.read_object(workdir / 'config.json'))
  config.evaluation.proxy.images = images
  mesh = meshes.make_mesh(jax.local_devices()[:1])
  runtime = Runtime(workdir, mesh, mesh, config.runtime)
  source = runtime.source(config.dataset, split)
  inputs = {name: workdir / name for name in ('priors', 'generator')}
  look = scores.Split(source, config.seed, config.evaluation.crf, runtime, config)
  found = proxy.measure(look, inputs)
  scored = records.read_json(workdir / 'evaluation' / f'priors_{split}.json')
  true = [_iou(source, image_id, inputs['priors'], config) for image_id in found['by_image']]
  by_image = rank_correlation(list(found['by_image'].values()), true)
  sure = {key: found[key] for key in results.PROXIES}
  return {'run': workdir.name, 'miou': scored['miou'], **sure, 'by image': by_image}


def _iou(
  source: info.Source, image_id: str, priors: Path, config: config_lib.PipelineConfig
) -> float:
  """IoU of an image's label map, cut where the proxy cuts it, with its mask."""
  index = source.ids.index(image_id)
  prior = products.read_prior(
    priors / source.split / f'{image_id}.npz',
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
  parser.add_argument('--split', default='train')
  parser.add_argument('--images', default=64, type=int, help='of the split, at equal distances')
  arguments = parser.parse_args()
  found = [measure(x, arguments.split, arguments.images) for x in arguments.runs]
  found.sort(key=lambda row: -row['miou'])
  keys = ('miou', *results.PROXIES)
  rows = [
    (row['run'], *(row[key] for key in keys), tables.number(row['by image'], 2)) for row in found
  ]
  line = ['rank correlation with mIoU', '']
  for key in results.PROXIES:
    pairs = [(row[key], row['miou']) for row in found if row[key] is not None]
    value = rank_correlation(*map(list, zip(*pairs, strict=True))) if pairs else None
    turned = -value if value is not None and key in _LOW_IS_GOOD else value
    line.append(tables.number(turned, 2))
  rows.append((*line, ''))
  print(tables.aligned(('run', *keys, 'by image'), rows, rule_before=len(rows) - 1))


if __name__ == '__main__':
  main()
