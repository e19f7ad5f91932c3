"""Is the dense CRF as fast as pydensecrf2 on this machine, and does it say the same?

    python benchmarks/crf.py --images=voc/images --priors=runs/voc/priors/val --number=20

Labels are the argmax of the priors against a constant background. Per photograph: milliseconds of
pydensecrf2 and of the compiled `ops.crf.dense_crf` (both with their lattices' construction), turn
by turn, the median of each; pixels with equal labels, mean and largest difference of the marginals.
As in the stages, photographs are padded to few shapes (`--buckets`) and their labels to a power of
two, so that few programs serve them all. CPU time counts all threads: it says more than the clock
on a machine that does other things, too. `--batch` then compares a batch under `jax.vmap` with its
photographs one after the other. Needs pydensecrf2, jax, numpy and Pillow.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.data.streams import buckets
from pnoc_jax.io import images, products
from pnoc_jax.ops import crf


def load(settings: argparse.Namespace) -> list[tuple[str, np.ndarray, np.ndarray, int]]:
  """Returns (id, image u8[H, W, 3], labels i32[H, W], K) of each photograph."""
  found = []
  for path in sorted(settings.priors.glob('*.npz'))[: settings.number]:
    image = images.read_image(settings.images / f'{path.stem}.jpg')
    high = np.asarray(products.read_prior(path, arrays=('high',)).high, np.float32)
    background = np.full((1, *high.shape[1:]), settings.threshold, np.float32)
    labels = np.concatenate([background, high]).argmax(0).astype(np.int32)
    found.append((path.stem, image, labels, len(high) + 1))
  if not found:
    raise SystemExit(f'no priors (*.npz) in {settings.priors}')
  return found


def pydensecrf(image: np.ndarray, labels: np.ndarray, k: int, settings) -> np.ndarray:
  """Returns pydensecrf2's marginals, f32[H, W, K]."""
  from pydensecrf import densecrf, utils

  height, width = labels.shape
  field = densecrf.DenseCRF2D(width, height, k)
  energies = utils.unary_from_labels(labels, k, gt_prob=settings.confidence, zero_unsure=False)
  field.setUnaryEnergy(energies)
  kernels = crf.LABELS
  field.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
  field.addPairwiseBilateral(
    sxy=kernels.bilateral_sxy,
    srgb=kernels.bilateral_srgb,
    rgbim=image.copy(),
    compat=kernels.bilateral_compat,
  )
  marginals = np.array(field.inference(settings.steps)).reshape(k, height, width)
  return marginals.transpose(1, 2, 0)


def main(argv: list[str] | None = None) -> list[dict]:
  """Reads the flags and prints the table; returns its rows."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--images', type=Path, required=True, help='folder of <id>.jpg')
  add('--priors', type=Path, required=True, help='folder of <id>.npz, from the stage `priors`')
  add('--number', type=int, default=20, help='photographs')
  add('--threshold', type=float, default=0.3, help='of the background')
  add('--confidence', type=float, default=0.7, help='in the labels')
  add('--steps', type=int, default=10, help='of mean field')
  add('--turns', type=int, default=7, help='of each measurement')
  add('--buckets', type=int, default=4, help='shapes that photographs are padded to')
  add('--batch', type=int, default=4, help='photographs at once, 0 for none')
  settings = parser.parse_args(argv)
  scenes = load(settings)
  shapes = buckets.plan_buckets(
    [labels.shape for _, _, labels, _ in scenes], max_buckets=settings.buckets
  )

  @jax.jit
  def infer(labels, image, valid, present):
    unary = crf.label_unary(labels, present.size, settings.confidence, present=present)
    return crf.dense_crf(unary, image, valid, steps=settings.steps)

  print(
    f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {len(os.sched_getaffinity(0))}', end=''
  )
  print(f' core(s), load {os.getloadavg()[0]:.1f}; padded to {shapes}')
  print(
    f'{"image":>14}  K  {"ms: theirs":>10}   ours  ratio  {"CPU ms: theirs":>14}   ours  ratio'
    '  equal labels %  mean diff.  largest'
  )
  found, batches = [], {}
  for name, image, labels, k in scenes:
    arguments = _pad(image, labels, k, buckets.choose(labels.shape, shapes))
    batches.setdefault((arguments[0].shape, arguments[3].size), []).append(arguments)
    (theirs, their_times), (ours, our_times) = _timed(
      settings.turns,
      lambda a=image, b=labels, c=k: pydensecrf(a, b, c, settings),
      lambda a=arguments: jax.block_until_ready(infer(*a)),
    )
    ours = np.asarray(ours)[: labels.shape[0], : labels.shape[1], :k]
    difference = np.abs(ours - theirs)
    row = {
      'image': name,
      'ms': (their_times[0], our_times[0]),
      'cpu': (their_times[1], our_times[1]),
      'equal': 100 * (ours.argmax(-1) == theirs.argmax(-1)).mean(),
      'mean': difference.mean(),
      'largest': difference.max(),
    }
    found.append(row)
    cells = [f'{b:.0f} {c:6.0f}  {c / b:5.2f}' for b, c in (row['ms'], row['cpu'])]
    print(f'{name:>14}  {k}  {cells[0]:>24}  {cells[1]:>28}', end='  ')
    print(f'{row["equal"]:14.3f}  {row["mean"]:10.1e}  {row["largest"]:7.1e}', flush=True)
  ratios = [[b / a for a, b in (row[key] for row in found)] for key in ('ms', 'cpu')]
  print(
    f'median ratio {rows.median(ratios[0]):.2f} by the clock (largest {max(ratios[0]):.2f}), '
    f'{rows.median(ratios[1]):.2f} of CPU (largest {max(ratios[1]):.2f}); '
    f'least equal labels {min(row["equal"] for row in found):.3f} %, '
    f'largest mean difference {max(row["mean"] for row in found):.1e}'
  )
  most = max(batches.values(), key=len)[: settings.batch]
  if most:
    stacked = [np.stack(parts) for parts in zip(*most, strict=True)]
    many = jax.jit(jax.vmap(infer))
    (singles, alone), (batch, together) = _timed(
      settings.turns,
      lambda: [jax.block_until_ready(infer(*arguments)) for arguments in most],
      lambda: jax.block_until_ready(many(*stacked)),
    )
    clock, cpu = ([x / len(most) for x in pair] for pair in zip(together, alone, strict=True))
    print(
      f'{len(most)} photographs at once, ms of each (one after the other): '
      f'clock {clock[0]:.0f} ({clock[1]:.0f}), CPU {cpu[0]:.0f} ({cpu[1]:.0f}); '
      f'largest difference {np.abs(batch - np.stack(singles)).max():.1e}'
    )
  return found


def _pad(image: np.ndarray, labels: np.ndarray, k: int, shape: tuple[int, int]) -> tuple:
  """Returns the arguments of the compiled function."""
  pad = [(0, a - b) for a, b in zip(shape, labels.shape, strict=True)]
  return (
    np.pad(labels, pad),
    np.pad(image, (*pad, (0, 0))),
    np.pad(np.ones(labels.shape, bool), pad),
    np.arange(1 << (k - 1).bit_length()) < k,
  )


def _timed(turns: int, *runs):
  """Returns (result, (ms, CPU ms)) of each, in the median of turns after one that is not timed."""
  results, times = [run() for run in runs], [[] for _ in runs]
  for _ in range(turns):
    for run, mine in zip(runs, times, strict=True):
      start = (time.perf_counter(), time.process_time())
      run()
      mine.append((time.perf_counter() - start[0], time.process_time() - start[1]))
  medians = [tuple(1e3 * rows.median(column) for column in zip(*mine)) for mine in times]
  return list(zip(results, medians, strict=True))


if __name__ == '__main__':
  main()
