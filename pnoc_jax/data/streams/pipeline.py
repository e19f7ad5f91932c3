"""Deterministic streams of batches: which examples, in which order, transformed and stacked.

A training stream is a pure function of (seed, global position). Position g is row g % B of step
g // B; the epoch g // (S * B) of S = N // B steps has its own permutation, and the transform's
randomness is that of the position. A process reads only its own rows, so that any number of
processes, workers or threads sees the same global batches, and any step can be the first.
"""

import dataclasses
import enum
import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.augment import mixing, transforms
from pnoc_jax.data.streams import joins, positions, sampling

Share = positions.Share
_THREADS = 2  # Decoding and resizing release the interpreter's lock.


class Images(enum.Enum):
  """Which images a training stream shows."""

  LABELLED = 'labelled'
  """Those with at least one class."""
  ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Examples:
  """What a training stream shows.

  Attributes:
    source: the examples.
    target: a map beside each image, resized, mirrored and cropped with it, or None.
    images: which images are shown.
    mix: how images and their labels are mixed, or None; never together with `target`.
    draw: how often an epoch shows each image.
  """

  source: info.Source
  target: joins.Target | None = None
  images: Images = Images.LABELLED
  mix: mixing.MixConfig | None = None
  draw: sampling.Sampling = sampling.Sampling.UNIFORM

  @property
  def indices(self) -> np.ndarray:
    """i64[N]: the places in `source` of the examples that are shown."""
    return labelled(self.source) if self.images is Images.LABELLED else np.arange(len(self.source))

  def steps_per_epoch(self, batch_size: int) -> int:
    """S = N // B over the examples shown; the rest of an epoch's permutation is dropped.

    Raises:
      UserError: there is not one full batch.
    """
    count = len(self.indices)
    if count < batch_size:
      which = 'images with a label' if self.images is Images.LABELLED else 'images'
      raise errors.UserError(
        f'The split {self.source.split!r} of {self.source.info.name!r} has {count} {which}, fewer '
        f'than the batch size {batch_size}: use a smaller batch (--config.STAGE.batch_size of the '
        'stage that trains on them) or more images.'
      )
    return count // batch_size


def train_batches(
  examples: Examples,
  transform: transforms.TransformConfig,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  share: Share = positions.WHOLE,
) -> 'Batches':
  """The endless training stream of one process.

  Args:
    examples: what is shown.
    transform: the training transform.
    batch_size: B, of the global batch.
    seed: decides order and transforms.
    start_step: first step of the stream; any, at no cost.
    share: this process's part of the batches.

  Returns:
    An iterator of {'image': u8[b, S, S, C], 'box': i32[b, 4], 'label': f32[b, K], 'index': i32[b]}
    where 'index' is the example's place in the source (of a mixed one, that of its first image);
    with a target also 'target': u8[b, S, S].

  Raises:
    UserError: fewer images than a batch, the batch does not divide by the processes, or the
      transform or the mixing cannot work.
  """
  source, paired = examples.source, examples.target is not None
  transforms.validate(transform, paired=paired, channels=len(source.info.mean))
  mixer = _make_mixer(examples, transform, seed=seed)
  weights = None
  if examples.draw is sampling.Sampling.BALANCED:
    weights = sampling.example_weights(source.labels[examples.indices])
  rows_of = positions.TrainPositions(
    examples.indices,
    share,
    batch_size=batch_size,
    seed=seed,
    start_step=start_step,
    weights=weights,
  )
  examples.steps_per_epoch(batch_size)
  load = _Train(source, transform, seed, examples.target, mixer)
  dataset = grain.MapDataset.source(rows_of).map(load).batch(share.rows(batch_size))
  return Batches(dataset, workers=share.workers)


def _make_mixer(
  examples: Examples, transform: transforms.TransformConfig, *, seed: int
) -> mixing.Mixer | None:
  mix = examples.mix
  if mix is None or mix.kind is mixing.Mix.NONE:
    return None
  wrong = mixing.faults(mix)
  if examples.target is not None:
    wrong.append(f'kind is {mix.kind.value}, but images with a target cannot be mixed: use none')
  if wrong:
    raise errors.UserError('The mixing cannot work: ' + '; '.join(wrong) + '.')
  return mixing.Mixer(examples.source, examples.indices, transform, mix, seed=seed)


def valid_batches(
  source: info.Source,
  *,
  size: int,
  batch_size: int,
  squeeze: bool = False,
  tones: transforms.Tones = transforms.Tones.NONE,
  target: joins.Target | None = None,
  share: Share = positions.WHOLE,
) -> 'Batches':
  """One pass over a split in order, for in-training validation.

  Every process yields the same number of batches. The last global batch is filled up with repeats
  of the last example, of weight 0.

  Args:
    source: the examples.
    size: side of the square, px.
    batch_size: B, of the global batch.
    squeeze: squeeze whole images to the square instead of cutting their top left.
    tones: how the tones of the images are made alike.
    target: maps that take the place of the source's masks; each image has one.
    share: this process's part of the batches.

  Returns:
    An iterator of {'image': u8[b, S, S, C], 'box': i32[b, 4], 'label': f32[b, K], 'index': i32[b],
    'mask': u8[b, S, S] (255 where there is none), 'weight': f32[b]}.

  Raises:
    UserError: the batch does not divide by the processes.
  """
  rows_of = positions.ValidPositions(len(source), share, batch_size=batch_size)
  fit = functools.partial(transforms.valid, size=size, squeeze=squeeze, tones=tones)
  load = _Valid(source, target, fit)
  dataset = grain.MapDataset.source(rows_of).map(load).batch(share.rows(batch_size))
  return Batches(dataset, workers=share.workers)


def labelled(source: info.Source) -> np.ndarray:
  """i64[N]: the indices of the examples that have at least one class."""
  # Differs from the reference: images without a label are left out of the training of classifiers;
  # because it shows the next image in their place, and so that image twice an epoch.
  return np.flatnonzero(source.labels.any(axis=1))


class Batches:
  """An iterator of batches that are prepared ahead, in threads or in worker processes.

  Closed by `close()`, by leaving a `with` block, and at the latest when it is forgotten.
  """

  def __init__(self, dataset: grain.MapDataset, *, workers: int, buffer: int = 4):
    """Starts reading.

    Args:
      dataset: its elements are whole batches: they are dealt to workers one by one, so that the
        order does not depend on the number of these.
      workers: processes that prepare batches; 0 for two threads of this process.
      buffer: batches held ready by each process.
    """
    options = grain.ReadOptions(num_threads=min(_THREADS, buffer), prefetch_buffer_size=buffer)
    stream = dataset.to_iter_dataset(options)
    if workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads flags; notebooks and tests parse none.
      stream = stream.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
      )
    self._shared = workers > 0
    self._stream = iter(stream)
    # Also at the interpreter's exit, while what grain needs for closing is still there.
    self._close = weakref.finalize(self, self._stream.close)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._stream is None:
      raise StopIteration
    batch = next(self._stream)
    # A worker's arrays live in memory that grain takes back: hand out our own.
    return _own(batch) if self._shared else batch

  def __enter__(self) -> 'Batches':
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def close(self) -> None:
    """Stops threads and processes; what was prepared is dropped."""
    self._close()
    self._stream = None
    if self._shared:
      # The exception that ended a pass holds itself and, in a frame of grain's, the last batch: its
      # memory, which all processes share, would stay until Python looks for such cycles, or beyond.
      gc.collect()


def _own(tree: Any) -> Any:
  """A copy of the arrays in nested dicts and lists."""
  if isinstance(tree, dict):
    return {name: _own(x) for name, x in tree.items()}
  if isinstance(tree, list):
    return [_own(x) for x in tree]
  return np.array(tree) if isinstance(tree, np.ndarray) else tree


class _Train:
  """Reads and transforms one training example."""

  def __init__(
    self,
    source: info.Source,
    config: transforms.TransformConfig,
    seed: int,
    target: joins.Target | None,
    mixer: mixing.Mixer | None,
  ):
    self._source, self._config, self._seed, self._target = source, config, seed, target
    self._mixer = mixer

  def __call__(self, at: tuple) -> dict[str, Any]:
    position, index = at
    rng = np.random.default_rng([positions.TRANSFORM, self._seed, position])
    example = self._source.example(index)
    entries = {'label': example['label'], 'index': np.int32(index)}
    if self._target is None:
      image, box = transforms.train(example['image'], rng, self._config)
      if self._mixer:
        image, box, label = self._mixer(image, box, example['label'], position=position)
        entries['label'] = label
      return {'image': image, 'box': box, **entries}
    pair = transforms.train_pair(
      example['image'],
      self._target.read(index, size=example['image'].shape[:2]),
      rng,
      self._config,
      fill=self._target.fill,
      resample=self._target.resample,
    )
    return {**pair._asdict(), **entries}


class _Valid:
  """Reads and transforms one validation example."""

  def __init__(
    self,
    source: info.Source,
    target: joins.Target | None,
    fit: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
  ):
    self._source, self._target, self._fit = source, target, fit

  def __call__(self, at: tuple) -> dict[str, Any]:
    index, weight = at
    example = self._source.example(index)
    if self._target is None:
      mask, resample = self._source.mask(index), joins.Resample.NEAREST
      if mask is not None:  # Where nobody has checked the data set, this is its first look.
        info.check_mask(self._source, index, mask)
    else:
      mask = self._target.read(index, size=example['image'].shape[:2])
      resample = self._target.resample
    image, box, mask = self._fit(example['image'], mask, resample=resample)
    return {
      'image': image,
      'box': box,
      'label': example['label'],
      'index': np.int32(index),
      'mask': mask,
      'weight': np.float32(weight),
    }
