"""Records what pydensecrf computes on a small image, for tests/ops/crf/test_crf.py.

`pip install pydensecrf2 && python tools/record_crf_fixture.py` (recorded with pydensecrf2 1.1)
"""

from pathlib import Path

import numpy as np
from pydensecrf import densecrf, utils

_FILE = Path(__file__).resolve().parent.parent / 'tests' / 'fixtures' / 'crf.npz'
_SHAPE = (36, 48)
_LABELS = 3


def make_scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns a noisy image u8[H, W, 3] of a disc and a bar, rough labels i32, probabilities f32."""
  rng = np.random.default_rng(0)
  y, x = np.indices(_SHAPE)
  truth = np.zeros(_SHAPE, int)
  truth[(y - 14) ** 2 + (x - 15) ** 2 < 90] = 1
  truth[8:31, 33:41] = 2
  colors = np.array([[90, 120, 80], [180, 70, 60], [60, 90, 190]])
  image = colors[truth] + 0.7 * (x + y)[..., None] + rng.normal(0, 6, (*_SHAPE, 3))
  # As priors are: blocks that miss the outline, and some that are wrong.
  coarse = truth[3::6, 3::6].copy()
  wrong = rng.uniform(size=coarse.shape) < 0.08
  coarse[wrong] = rng.integers(0, _LABELS, wrong.sum())
  labels = np.kron(coarse, np.ones((6, 6), int)).astype(np.int32)
  score = np.eye(_LABELS)[labels] + rng.normal(0, 0.4, (*_SHAPE, _LABELS))
  probabilities = np.exp(2 * score) / np.exp(2 * score).sum(-1, keepdims=True)
  return image.clip(0, 255).astype(np.uint8), labels, probabilities.astype(np.float32)


def infer(
  image: np.ndarray,
  unary: np.ndarray,
  *,
  gaussian: tuple[float, float],
  bilateral: tuple[float, float, float],
  steps: int,
) -> np.ndarray:
  """Returns marginals f32[H, W, K]; gaussian: (sxy, compat), bilateral: (sxy, srgb, compat)."""
  height, width = image.shape[:2]
  crf = densecrf.DenseCRF2D(width, height, len(unary))
  crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(unary), -1)))
  crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
  sxy, srgb, compat = bilateral
  crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=image.copy(), compat=compat)
  marginals = np.array(crf.inference(steps)).reshape(len(unary), height, width)
  return marginals.transpose(1, 2, 0)


def main() -> None:
  """Writes the fixture."""
  image, labels, probabilities = make_scene()
  by_labels = utils.unary_from_labels(labels, _LABELS, gt_prob=0.7, zero_unsure=False)
  maps = np.ascontiguousarray(probabilities.transpose(2, 0, 1))
  by_softmax = utils.unary_from_softmax(maps)
  part = utils.unary_from_labels(labels[6:, 4:], _LABELS, gt_prob=0.7, zero_unsure=False)
  np.savez_compressed(
    _FILE,
    image=image,
    labels=labels,
    probabilities=probabilities,
    from_labels=infer(image, by_labels, gaussian=(3, 3), bilateral=(50, 5, 10), steps=10),
    from_softmax=infer(image, by_softmax, gaussian=(1, 3), bilateral=(67, 3, 4), steps=10),
    from_part=infer(image[6:, 4:], part, gaussian=(3, 3), bilateral=(50, 5, 10), steps=10),
  )


if __name__ == '__main__':
  main()
