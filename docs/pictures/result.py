"""Draws what finished trainings on `shapes` show of six validation images.

`python docs/pictures/result.py --stage=RUN/classifier --stage=RUN/generator` writes `result.png`
beside itself: the images, the maps of each network, the last one's labels after the dense CRF, and
the true masks.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from configs import pnoc_shapes
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.engine import networks
from pnoc_jax.io import images, weights
from pnoc_jax.ops import cam as cam_ops
from pnoc_jax.ops import crf, normalize, pseudo_labels, resize
from pnoc_jax.predict import cams
from pnoc_jax.report import pictures

HERE = pathlib.Path(__file__).parent
SIDE, GAP, COUNT, THRESHOLD = 128, 4, 6, 0.2


def maps(stage: pathlib.Path, source: shapes.ShapesSource) -> np.ndarray:
  """The maps f32[COUNT, H, W, K] of the images' classes, with those of the mirror images."""
  config = pnoc_shapes.get_config()
  model = networks.build(config.generator.model, source.info.num_classes)
  variables, _ = weights.load(stage)
  pixels = jnp.stack([source.example(index)['image'] for index in range(COUNT)])
  whole = jnp.tile(jnp.array([0, 0, *pixels.shape[1:3]]), (COUNT, 1))
  image = normalize.normalize(pixels, whole, mean=source.info.mean, std=source.info.std)
  call = jax.jit(lambda image: jax.nn.relu(cams.raw_cams(model, variables, image)))
  both = call(image) + call(image[:, :, ::-1])[:, :, ::-1]
  large = resize.bilinear(both * source.labels[:COUNT, None, None, :], image.shape[1:3])
  return np.asarray(cam_ops.normalize_max(large, axis=(1, 2)))


def refined(image: np.ndarray, found: np.ndarray) -> np.ndarray:
  """The labels u8[H, W] of one image's maps after the dense CRF of the config's pseudo masks."""
  ours = pnoc_shapes.get_config().pseudo_masks.crf
  labels = pseudo_labels.argmax_labels(found, THRESHOLD)
  present = np.r_[True, found.max((0, 1)) > 0]
  unary = crf.label_unary(jnp.asarray(labels), len(present), ours.confidence, present=present)
  kernels = crf.Kernels(
    ours.gaussian_sxy,
    ours.gaussian_compat,
    ours.bilateral_sxy,
    ours.bilateral_srgb,
    ours.bilateral_compat,
  )
  marginals = crf.dense_crf(unary, jnp.asarray(image), steps=ours.steps, kernels=kernels)
  return np.asarray(marginals.argmax(-1)).astype(np.uint8)


def main() -> None:
  """Writes the picture."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--stage', type=pathlib.Path, action='append', required=True)
  stages = parser.parse_args().stage
  source = shapes.ShapesSource(info.ShapesConfig(), 'val')
  found = [maps(stage, source) for stage in stages]
  columns = []
  for index in range(COUNT):
    image = source.example(index)['image']
    panels = [image, *(pictures.overlay(image, x[index].max(-1)) for x in found)]
    for labels in (refined(image, found[-1][index]), source.mask(index)):
      panels.append(pictures.blend(image, labels, source.info.palette))
    large = [x.repeat(SIDE // len(x), 0).repeat(SIDE // len(x), 1) for x in panels]
    gap = np.full((GAP, large[0].shape[1], 3), 255, np.uint8)
    columns.append(np.concatenate([x for panel in large for x in (panel, gap)][:-1]))
  gap = np.full((columns[0].shape[0], GAP, 3), 255, np.uint8)
  parts = [x for column in columns for x in (column, gap)][:-1]
  images.write_png(HERE / 'result.png', np.concatenate(parts, axis=1))


if __name__ == '__main__':
  main()
