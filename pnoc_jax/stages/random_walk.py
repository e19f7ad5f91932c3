"""Stage `random_walk`: priors spread within edges; made for every image that has priors."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pnoc_jax.data import info
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import infer, memory, networks, per_image, settings
from pnoc_jax.engine.runtime import Context
from pnoc_jax.io import images, products
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.predict import edges
from pnoc_jax.report import refinement
from pnoc_jax.stages import affinity
from pnoc_jax.stages.common import maps, scores, stage
from pnoc_jax.types import Array, Variables


@dataclasses.dataclass(slots=True)
class RandomWalkConfig(settings.InferenceConfig):
  """The walk of the priors; its defaults are the reference's.

  Attributes:
    radius: the walk steps to cells closer than this; a cell is 4 px.
    beta: exponent of the affinities.
    exp_times: binary logarithm of the number of steps.
    flip: average the edges with those of the mirror image.
  """

  radius: int = 5
  beta: float = 10.0
  exp_times: int = 8
  flip: bool = True


def edge_path(directory: Path, split: str, name: str) -> Path:
  """Where the image's edges lie, to look at: grey, 255 for an edge, a pixel a cell."""
  return per_image.image_path(directory / 'edges', split, name)


def run(context: Context) -> dict[str, float]:
  """Writes `<out>/<split>/<id>.npz` of every labelled image; skips those that are there."""
  model, dataset = affinity.build(context.config.affinity), context.train.info
  variables = networks.load(model, dataset, context.inputs['affinity'])
  inference = _make_inference(variables, context)
  splits = context.config.priors.splits
  jobs = (_job(inference, context.source(split), context) for split in splits)
  return per_image.make_all(jobs, context.runtime) | infer.compilations([inference])


def _programs(context: Context) -> list[compiler.Call]:
  model = affinity.build(context.config.affinity)
  variables = networks.abstract_variables(model, context.train.info)
  images = [(x, pipeline.labelled(x)) for x in map(context.source, context.config.priors.splits)]
  width = infer.present_width(images, context.config.random_walk.batch_size)

  def priors(bucket: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {'low': ((*(-(-n // products.STRIDE) for n in bucket), width), np.float32)}

  return _make_inference(variables, context).calls(images, context=priors)


def _make_inference(variables: Variables, context: Context) -> infer.Inference:
  network = _network(variables, context)
  return infer.Inference(network, context.config.random_walk, context.runtime)


def _network(variables: Variables, context: Context) -> infer.Network:
  """The edges of one scale, then the walk of the priors within them."""
  ours, theirs = context.config.random_walk, context.config.affinity
  dataset = networks.colours(theirs.model, context.train.info)
  model, stride = affinity.build(theirs), affinity.stride(theirs)

  def scale(variables: Variables, image: Array, size: Array) -> Array:
    return edges.edges(model, variables, image, size, stride=stride, flip=ours.flip)

  def fuse(found: list[Array], grid: infer.Grid) -> tuple[Array, Array, Array]:
    walk, low = edges.walk(
      grid.context['low'],
      found[0],
      grid.native,
      stride=stride,
      shape=grid.shape,
      radius=ours.radius,
      beta=ours.beta,
      exp_times=ours.exp_times,
    )
    return found[0], walk, low

  return infer.Network(scale, fuse, variables, dataset, _context)


def _context(classes: int, shape: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
  cells = [-(-n // products.STRIDE) for n in shape]
  return {'low': jax.ShapeDtypeStruct((1, *cells, infer.width(classes)), np.float32)}


def _work(context: Context, images: memory.Images) -> tuple[memory.Work, ...]:
  model = affinity.build(context.config.affinity)
  variables = networks.abstract_variables(model, context.train.info)
  return (infer.work(_network(variables, context), context.config.random_walk, images),)


def _job(inference: infer.Inference, source: info.Source, context: Context) -> per_image.Job:
  directory, stride = (
    context.inputs['priors'] / source.split,
    affinity.stride(context.config.affinity),
  )
  (context.out / 'edges' / source.split).mkdir(parents=True, exist_ok=True)
  keys: dict[int, np.ndarray] = {}
  among = pipeline.labelled(source)

  def priors(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found = [_read(source, index, directory) for index in batch['index']]
    keys.update({int(i): prior.keys for i, prior in zip(batch['index'], found, strict=True)})
    return {'low': _stack([prior.low for prior in found], batch['bucket'])}

  def results(indices: list[int]) -> Iterator[per_image.Result]:
    every = per_image.share(among)
    found_of = inference(source, indices, among=every, context=priors, by_classes=True)
    for index, (height, width), (edge, walk, low) in found_of:
      known = keys.pop(index)
      rows, columns, count = -(-height // stride), -(-width // stride), len(known) - 1
      grey = np.round(255 * edge[:rows, :columns]).astype(np.uint8)
      found = np.moveaxis(walk[:height, :width, :count], -1, 0).astype(np.float16)
      cells = np.moveaxis(low[:rows, :columns, :count], -1, 0)
      beside = edge_path(context.out, source.split, source.ids[index])
      product = products.Walk(known, found)
      yield index, functools.partial(_write, beside=beside, edge=grey, product=product, cells=cells)

  return per_image.Job(
    what=f'random walk of {source.split}',
    source=source,
    among=among,
    directory=context.out,
    results=results,
    exists=products.exists_walk,
    suffix='.npz',
  )


def _write(
  path: Path, *, beside: Path, edge: np.ndarray, product: products.Walk, cells: np.ndarray
) -> None:
  images.write_png(beside, edge)
  # Last: that it is there says that the image is done.
  products.write_walk(path, *product, cells)


def _read(source: info.Source, index: int, directory: Path) -> products.Prior:
  return products.read_prior(
    directory / f'{source.ids[index]}.npz',
    size=source.size(index),
    num_classes=source.info.num_classes,
    arrays=('low',),
  )


def _stack(found: list[np.ndarray], bucket: tuple[int, int]) -> np.ndarray:
  """f32[B, h, w, P]: maps in the top-left corner, classes filled up to a power of two."""
  most = max(map(len, found))
  stacked = np.zeros(
    (len(found), *(-(-n // products.STRIDE) for n in bucket), infer.width(most)),
    np.float32,
  )
  for row, x in enumerate(found):
    stacked[row, : x.shape[1], : x.shape[2], : len(x)] = np.moveaxis(x, 0, -1)
  return stacked


def _check(context: Context) -> None:
  if 'affinity' in context.inputs:
    model = affinity.build(context.config.affinity)
    networks.load(model, context.train.info, context.inputs['affinity'])
  for split in context.config.priors.splits:
    priors = maps.Evidence(
      context.source(split),
      context.inputs,
      scores=maps.Scores.PRIORS,
      saliency=maps.Saliency.NONE,
    )
    priors.check(priors.labelled)


def _faults(config: stage.PipelineConfig) -> list[str]:
  ours = config.random_walk
  found = settings.inference_faults('random_walk', ours)
  if ours.radius < 2:
    found.append(f'random_walk.radius is {ours.radius}; from 2 on a cell has a neighbour')
  if ours.beta <= 0:
    found.append(f'random_walk.beta is {ours.beta}; it is positive')
  if not 0 <= ours.exp_times <= 16:
    found.append(f'random_walk.exp_times is {ours.exp_times}; it lies in 0..16')
  return found


def _describe(config: stage.PipelineConfig, source: info.Source) -> str:
  del source
  ours = config.random_walk
  return (
    f'{" and ".join(config.priors.splits)}, radius {ours.radius}, beta {ours.beta:g}, '
    f'{2**ours.exp_times} steps'
  )


STAGE = stage.Stage(
  name='random_walk',
  config=RandomWalkConfig,
  title='Random walk',
  run=run,
  describe=_describe,
  needs=lambda config: ('priors', 'affinity'),
  reads=lambda config: ('random_walk', 'priors.splits', 'affinity.model', 'affinity.width'),
  check=_check,
  faults=_faults,
  splits=lambda config: config.priors.splits,
  scores=(stage.Score('random_walk', 'Random walk', scores.score_walk),),
  programs=_programs,
  work=_work,
  # float32 on a quarter of the side, and a grey image of the edges; with what is left of packing.
  figures=refinement.random_walk,
  sample=refinement.walk_view,
  disk=lambda pixels, maps: maps * (4 / 16 * 0.75 + 0.01) + pixels * 0.05,
)
