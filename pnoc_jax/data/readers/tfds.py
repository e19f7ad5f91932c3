"""Packs a data set into ArrayRecord files by a TFDS builder, without TensorFlow; and reads them.

  <root>/<dataset>/<split>/1.0.0/      the directory of a TFDS builder, local or `gs://`
    <dataset>-<split>.array_record-*   one record for each image, in the order of the ids
    metadata.json                      ids, labels, sizes, classes: what opening a split needs

A record is {'id': text, 'files': the bytes of the image's files (4 for HPA, else 1), 'label':
f32[K], 'mask': a PNG, or nothing}; `packing.contents` says which bytes these are.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.data import info
from pnoc_jax.data.readers import hpa, lists, packing
from pnoc_jax.io import images, ranges

_VERSION = '1.0.0'
_LAST = 'dataset_info.json'  # The last file that a builder writes.
_FEATURES = 'features.json'
# The classes that a packed split is made of. TFDS imports the module of any class that is named.
_CLASSES = frozenset(
  f'tensorflow_datasets.core.features.{x}'
  for x in (
    'features_dict.FeaturesDict',
    'scalar.Scalar',
    'sequence_feature.Sequence',
    'tensor_feature.Tensor',
    'text_feature.Text',
  )
)


def pack(
  source: info.Source,
  name: str,
  output: str,
  *,
  upright: bool = False,
  on_progress: Callable[[int, int], None] | None = None,
) -> bool:
  """Packs a split, unless it is packed already.

  A call that was stopped leaves nothing that counts; the next one begins the split again.

  Args:
    source: the examples, found sound.
    name: the data set's name.
    output: the directory of all packed data sets, local or `gs://`.
    upright: whether the images are turned as EXIF says.
    on_progress: called with (examples done, examples).

  Returns:
    Whether this call packed it.

  Raises:
    UserError: the split cannot be packed under its name, or another one lies there.
  """
  if not re.fullmatch(r'\w+', source.split):
    raise errors.UserError(
      f'the split {source.split!r} cannot be packed: TFDS names splits with letters, digits and _'
    )
  if (old := _find(output, name, source.split)) is not None:
    _check_same(_open(old, source.split), source, old)
    return False
  if not _is_remote(output):
    _build(source, name, output, upright, on_progress)
    return True
  # ArrayRecord reads from buckets but writes local files only, so they are copied.
  with tempfile.TemporaryDirectory(prefix='pnoc_jax_') as local:
    _build(source, name, local, upright, on_progress)
    _copy(_directory(local, name, source.split), _directory(output, name, source.split))
  return True


def _is_remote(path):
  return '://' in path


def _directory(root, name, split):
  """The builder's directory."""
  import tensorflow_datasets as tfds

  return tfds.core.Path(root).expanduser() / name / split / _VERSION


def _build(source, name, output, upright, on_progress):
  import tensorflow_datasets as tfds

  place = _directory(output, name, source.split)
  for left in place.parent.glob(f'incomplete.*{_VERSION}'):
    left.rmtree()
  builder = _make_builder(source, name, upright, on_progress)(
    data_dir=output, config=source.split, file_format='array_record'
  )
  tfds.disable_progress_bar()
  with (
    tempfile.TemporaryDirectory() as downloads,
    contextlib.redirect_stdout(io.StringIO()),  # TFDS tells of downloads, and there are none.
  ):
    builder.download_and_prepare(download_dir=downloads)


def _copy(there, place):
  """Copies a builder's files, the one that `_find` looks for as the last."""
  place.mkdir(parents=True, exist_ok=True)
  for path in sorted(there.iterdir(), key=lambda x: x.name == _LAST):
    with path.open('rb') as source, (place / path.name).open('wb') as target:
      shutil.copyfileobj(source, target, 1 << 24)


def _make_builder(source, name, upright, on_progress):
  import tensorflow_datasets as tfds

  class Packed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One split of a data set."""

    VERSION = tfds.core.Version(_VERSION)
    # TFDS 4.9 would look for the file with a package that it does not require.
    code_path = None
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name=source.split),)

    def _info(self):
      data = tfds.features.Scalar(dtype=np.object_)
      return tfds.core.DatasetInfo(
        builder=self,
        description=f'{source.info.name}, {source.split}: image files, labels and masks.',
        features=tfds.features.FeaturesDict(
          {
            'id': tfds.features.Text(),
            'files': tfds.features.Sequence(data),
            'label': tfds.features.Tensor(shape=(source.info.num_classes,), dtype=np.float32),
            'mask': data,
          }
        ),
        metadata=tfds.core.MetadataDict(packing.metadata(source, upright=upright)),
        disable_shuffling=True,  # Record i is of the i-th id.
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {source.split: self._generate_examples()}

    def _generate_examples(self):
      for index, key in enumerate(source.ids):
        files, mask = packing.contents(source, index)
        yield index, {'id': key, 'files': files, 'label': source.labels[index], 'mask': mask}
        if on_progress is not None:
          on_progress(index + 1, len(source))

  Packed.name = name
  return Packed


def _check_same(there, source, path):
  same = (
    there.ids == source.ids
    and there.info.classes == source.info.classes
    and there.has_masks == source.has_masks
    and np.array_equal(there.labels, source.labels)
  )
  if not same:
    raise errors.UserError(
      f'{path} holds a split of other images, labels or classes: remove it, or take another output'
    )


def open_source(config: info.DatasetConfig, split: str, exclude: frozenset[str]) -> info.Source:
  """Opens a packed split; `sources.open_source` documents the arguments.

  Raises:
    UserError: the split was not packed in `config.root`.
  """
  if not config.root:
    raise errors.UserError(
      'dataset.root is empty: set it to the directory that launch/prepare.py packed into'
    )
  path = _find(config.root, config.name, split)
  if path is None:
    raise errors.UserError(
      f'{config.root} holds no packed split {split!r} of {config.name}: pack it with '
      f'python launch/prepare.py --dataset={config.name} --root=DIR --output={config.root} '
      f'--splits={split}, or read the files themselves with --config.dataset.source=files'
    )
  return _open(path, split, exclude)


def _find(root, name, split):
  """The builder's directory, or None if the split is not there."""
  path = _directory(root, name, split)
  return os.fspath(path) if (path / _LAST).exists() else None


def _open(path, split, exclude=frozenset()):
  metadata: Any = _builder(path).info.metadata
  try:
    packing.check_metadata(metadata)
  except ValueError as error:
    raise errors.UserError(f'{path} is not of launch/prepare.py: {error}') from error
  return PackedSource(path, split, metadata, exclude)


def _builder(path: str) -> Any:
  """TFDS's reader of a directory, of which nothing is imported that its files may name.

  Raises:
    UserError: the directory is damaged, or not of launch/prepare.py.
  """
  import tensorflow_datasets as tfds

  try:
    _check_features(json.loads((tfds.core.Path(path) / _FEATURES).read_bytes()))
    builder = tfds.builder_from_directory(path)
    _ = builder.info.metadata  # It is read when it is asked for.
    return builder
  # TFDS raises AssertionError, ParseError of protobuf, KeyError and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{path} is not of launch/prepare.py, or it is damaged ({type(error).__name__}: {error})'
    ) from error


def _check_features(found: Any) -> None:
  """Raises ValueError if a part of `features.json` is of a class that no packed split has."""
  for key, value in found.items() if isinstance(found, dict) else ():
    # `type` is an older form of the same.
    if key in ('pythonClassName', 'python_class_name', 'type') and value not in _CLASSES:
      raise ValueError(f'{_FEATURES} names the class {value!r}, which no packed split has')
    _check_features(value)
  if isinstance(found, list):
    for value in found:
      _check_features(value)


class PackedSource:
  """Random access to a packed split; `info.Source` documents attributes and methods."""

  def __init__(self, path: str, split: str, metadata: dict[str, Any], exclude: frozenset[str]):
    """Reads no record.

    Args:
      path: the builder's directory.
      split: the split's name.
      metadata: what `packing.metadata` made.
      exclude: ids to leave out.
    """
    self.path, self._upright, self._records = path, metadata['upright'], None
    keep = [i for i, key in enumerate(metadata['ids']) if key not in exclude]
    self._indices = keep
    # Splits that were packed before there were these have neither.
    self.white = ranges.Range(*metadata['white']) if metadata.get('white') else None
    self.remarks = tuple(metadata.get('remarks', ()))
    self._sizes = [tuple(metadata['sizes'][i]) for i in keep]
    self.info = info.DatasetInfo(**{x: _tuples(y) for x, y in metadata['info'].items()})
    self.split = split
    self.ids = tuple(metadata['ids'][i] for i in keep)
    self.labels = np.zeros((len(keep), self.info.num_classes), np.float32)
    for row, i in enumerate(keep):
      self.labels[row, metadata['labels'][i]] = 1
    self.has_masks = metadata['has_masks']
    if not keep:
      raise errors.UserError(lists.describe(path, [f'the split {split!r} has no images']))

  def __len__(self) -> int:
    return len(self.ids)

  def __getstate__(self) -> dict[str, object]:
    # A worker opens readers of its own.
    return {**self.__dict__, '_records': None}

  def example(self, index: int) -> dict[str, np.ndarray]:
    """{'image': u8[H, W, channels], 'label': f32[K], 'index': i32[]}."""
    with self._named(index):
      image = self._decode(self.contents(index)[0])
    return info.make_example(image, self.labels, index)

  def mask(self, index: int) -> np.ndarray | None:
    """u8[H, W], or None."""
    if not self.has_masks:
      return None
    with self._named(index):
      return images.read_mask(self.contents(index)[1])

  def size(self, index: int) -> tuple[int, int]:
    """(H, W)."""
    return self._sizes[index]

  def files(self, index: int) -> tuple[()]:
    """Empty: an example has no file of its own."""
    del index
    return ()

  def contents(self, index: int) -> tuple[list[bytes], bytes]:
    """The bytes of the image's files, and those of the mask's file or none."""
    try:
      record = self._data()[self._indices[index]]
      key, found, mask = record['id'].decode(), list(record['files']), record['mask']
    except errors.UserError:
      raise
    # ArrayRecord, protobuf and TFDS have errors of their own for broken records.
    except Exception as error:
      raise errors.UserError(
        f'{self.path}: the record of {self.ids[index]} cannot be read '
        f'({type(error).__name__}: {error}); pack again'
      ) from error
    if key != self.ids[index]:
      raise errors.UserError(
        f'{self.path}: the record of {self.ids[index]} is of {key!r}; pack again'
      )
    return found, mask

  def _data(self):
    if self._records is None:
      self._records = _builder(self.path).as_data_source(split=self.split)
    return self._records

  def _decode(self, files):
    if len(files) > 1:
      return hpa.read_channels(files, white=self.white)
    return images.read_image(files[0], upright=self._upright, white=self.white)

  @contextlib.contextmanager
  def _named(self, index):
    try:
      yield
    except errors.UserError as error:
      raise errors.UserError(f'{self.path}, {self.ids[index]}: {error}') from error


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
