"""Is the dense CRF as fast as pydensecrf2 on this machine, and does it say the same?

    python benchmarks/crf.py --images=voc/images --priors=runs/voc/priors/val --number=20

Labels are the argmax of the priors against a constant background. Per photograph: seconds of
pydensecrf2 and of the compiled `ops.crf.dense_crf` (both with their lattices' construction), pixels
with equal labels, mean and largest difference of the marginals. All photographs are padded to one
shape, so that one program serves them. CPU seconds count all threads: they say more than the clock
on a machine that does other things, too. Needs pydensecrf2, jax, numpy and Pillow.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from pnoc_jax.io import images, products
from pnoc_jax.ops import crf


def load(settings: argparse.Namespace) -> list[tuple[str, np.ndarray, np.ndarray, int]]:
  """Returns (id, image u8[H, W, 3], labels i32[H, W], K) of each photograph."""
  found = []
  for path in sorted(settings.priors.glob('*.npz'))[: settings.number]:
    image = images.read_image(settings.images / f'{path.stem}.jpg')
    high = np.asarray(products.read_prior(path).high, np.float32)
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
  settings = parser.parse_args(argv)
  scenes = load(settings)
  size = np.max([labels.shape for _, _, labels, _ in scenes], axis=0)
  most = max(k for *_, k in scenes)

  @jax.jit
  def infer(labels, image, valid, present):
    unary = crf.label_unary(labels, most, settings.confidence, present=present)
    return crf.dense_crf(unary, image, valid, steps=settings.steps)

  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {size[0]} x {size[1]}, K {most}')
  print(
    f'{"image":>14}  K  {"s: theirs":>9}   ours  ratio  {"CPU s: theirs":>13}   ours  ratio', end=''
  )
  print('  equal labels %  mean diff.  largest')
  found = []
  for name, image, labels, k in scenes:
    pad = [(0, a - b) for a, b in zip(size, labels.shape, strict=True)]
    arguments = (
      np.pad(labels, pad),
      np.pad(image, (*pad, (0, 0))),
      np.pad(np.ones(labels.shape, bool), pad),
      np.arange(most) < k,
    )
    if not found:
      jax.block_until_ready(infer(*arguments))
    theirs, *their_times = _timed(lambda a=image, b=labels, c=k: pydensecrf(a, b, c, settings))
    ours, *our_times = _timed(lambda a=arguments: jax.block_until_ready(infer(*a)))
    ours = np.asarray(ours)[: labels.shape[0], : labels.shape[1], :k]
    difference = np.abs(ours - theirs)
    row = {
      'image': name,
      'seconds': (their_times[0], our_times[0]),
      'cpu': (their_times[1], our_times[1]),
      'equal': 100 * (ours.argmax(-1) == theirs.argmax(-1)).mean(),
      'mean': difference.mean(),
      'largest': difference.max(),
    }
    found.append(row)
    cells = [f'{b:7.2f} {c:6.2f}  {c / b:5.2f}' for b, c in (row['seconds'], row['cpu'])]
    print(f'{name:>14}  {k}  {cells[0]:>23}  {cells[1]:>27}', end='  ')
    print(f'{row["equal"]:14.3f}  {row["mean"]:10.1e}  {row["largest"]:7.1e}', flush=True)
  ratios = [[b / a for a, b in (row[key] for row in found)] for key in ('seconds', 'cpu')]
  print(
    f'median ratio {rows.median(ratios[0]):.2f} by the clock, {rows.median(ratios[1]):.2f} of CPU; '
    f'least equal labels {min(row["equal"] for row in found):.3f} %, '
    f'largest mean difference {max(row["mean"] for row in found):.1e}'
  )
  return found


def _timed(run, turns: int = 3):
  """Returns the result, and the best seconds and CPU seconds of some turns."""
  best = (float('inf'),) * 2
  for _ in range(turns):
    start = (time.perf_counter(), time.process_time())
    result = run()
    best = (
      min(best[0], time.perf_counter() - start[0]),
      min(best[1], time.process_time() - start[1]),
    )
  return result, *best


if __name__ == '__main__':
  main()
