"""Per-image products on disk: written whole or not at all, read with every assumption checked.

Numpy only: data workers import this file.
"""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import npz

STRIDE = 4  # Of a prior's low maps.
_PRIOR = {'keys': np.int32, 'low': np.float32, 'high': np.float16, 'logits': np.float32}
_WALK = {'keys': np.int32, 'walk': np.float16}


class Prior(NamedTuple):
  """One image's class activation priors, each map over its own maximum.

  Attributes:
    keys: i32[K+1], 0 and then the image's classes (1..C), ascending; K >= 1.
    low: f32[K, ceil(H/4), ceil(W/4)].
    high: f16[K, H, W].
    logits: f32[C], of all classes, from the unscaled image.
  """

  keys: np.ndarray
  low: np.ndarray
  high: np.ndarray
  logits: np.ndarray


class Walk(NamedTuple):
  """One image's scores after the random walk, all over one maximum.

  Attributes:
    keys: i32[P+1], 0 and then the image's classes (1..C), ascending; P >= 1.
    walk: f16[P, H, W].
  """

  keys: np.ndarray
  walk: np.ndarray


def write_prior(
  path: str | os.PathLike,
  keys: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  logits: np.ndarray,
) -> None:
  """Writes one image's prior: compressed npz, the same bytes for the same arrays.

  Args:
    path: `<id>.npz`; its folder is made.
    keys: i32[K+1].
    low: f32[K, ceil(H/4), ceil(W/4)].
    high: f16[K, H, W].
    logits: f32[C].

  Raises:
    ValueError: a dtype, a shape or a value is not as `Prior` says.
  """
  prior = Prior(*map(np.asarray, (keys, low, high, logits)))
  _write(path, prior, _prior_fault(prior))


def write_walk(path: str | os.PathLike, keys: np.ndarray, walk: np.ndarray) -> None:
  """Writes one image's walk: compressed npz, the same bytes for the same arrays.

  Args:
    path: `<id>.npz`; its folder is made.
    keys: i32[P+1].
    walk: f16[P, H, W].

  Raises:
    ValueError: a dtype, a shape or a value is not as `Walk` says.
  """
  product = Walk(*map(np.asarray, (keys, walk)))
  _write(path, product, _walk_fault(product))


def _write(path: str | os.PathLike, product: Prior | Walk, fault: str | None) -> None:
  if fault:
    raise ValueError(f'not written to {path}: {fault}')
  # numpy dates every member 1980-01-01, so no clock enters the bytes.
  write_atomic(path, lambda file: np.savez_compressed(file, **product._asdict()))


def _prior_fault(prior: Prior) -> str | None:
  fault = _common_fault(prior, _PRIOR, 'high')
  if fault:
    return fault
  keys, low, high, logits = prior
  strided = (len(high), *(-(-n // STRIDE) for n in high.shape[1:]))
  if low.shape != strided:
    return f'`low` is {low.shape}, expected {strided} beside `high` {high.shape}'
  if logits.ndim != 1 or len(logits) < keys[-1]:
    return f'`logits` is {logits.shape}, expected one a class, and `keys` holds {keys[-1]}'
  return _finite_fault(prior, ('low', 'high', 'logits'))


def _walk_fault(walk: Walk) -> str | None:
  return _common_fault(walk, _WALK, 'walk') or _finite_fault(walk, ('walk',))


def _common_fault(product: Prior | Walk, members: dict[str, type], maps: str) -> str | None:
  """What is wrong with the dtypes, the keys, or the number of native maps beside them."""
  for name, dtype in members.items():
    if getattr(product, name).dtype != dtype:
      found = getattr(product, name).dtype
      return f'`{name}` is {found}, expected {np.dtype(dtype)}'
  keys, native = product.keys, getattr(product, maps)
  if keys.ndim != 1 or len(keys) < 2 or keys[0] != 0 or not np.all(np.diff(keys) > 0):
    return f'`keys` is {keys.tolist()}, expected 0 and then one or more ascending classes'
  if native.ndim != 3 or not native.size or len(native) != len(keys) - 1:
    return f'`{maps}` is {native.shape}, expected [{len(keys) - 1}, H, W] beside {len(keys)} keys'
  return None


def _finite_fault(product: Prior | Walk, names: tuple[str, ...]) -> str | None:
  for name in names:
    if not np.isfinite(getattr(product, name)).all():
      return f'`{name}` holds NaN or infinity'
  return None


def read_prior(
  path: str | os.PathLike,
  *,
  size: tuple[int, int] | None = None,
  num_classes: int | None = None,
) -> Prior:
  """Reads what `write_prior` wrote, and nothing else; never unpickles.

  Args:
    path: `<id>.npz`.
    size: the image's (H, W), to be checked against the maps.
    num_classes: C without the background, to be checked against the logits.

  Raises:
    UserError: the file is missing, cut short, foreign or of another image; names file and fault.
  """
  prior = Prior(**_read(path, _PRIOR, 'prior', 'priors'))
  fault = _prior_fault(prior) or _size_fault('high', prior.high, size)
  if fault is None and num_classes is not None and len(prior.logits) != num_classes:
    fault = f'it is of {len(prior.logits)} classes, but the data set has {num_classes}'
  if fault is not None:
    raise errors.UserError(f'{path}: {fault}')
  return prior


def read_walk(
  path: str | os.PathLike,
  *,
  size: tuple[int, int] | None = None,
  num_classes: int | None = None,
) -> Walk:
  """Reads what `write_walk` wrote, and nothing else; never unpickles.

  Args:
    path: `<id>.npz`.
    size: the image's (H, W), to be checked against the map.
    num_classes: C without the background, to be checked against the keys.

  Raises:
    UserError: the file is missing, cut short, foreign or of another image; names file and fault.
  """
  walk = Walk(**_read(path, _WALK, 'walk', 'random_walk'))
  fault = _walk_fault(walk) or _walk_of_fault(walk, size, num_classes)
  if fault is not None:
    raise errors.UserError(f'{path}: {fault}')
  return walk


def _walk_of_fault(walk: Walk, size: tuple[int, int] | None, num_classes: int | None) -> str | None:
  """Whether the walk is of another image, or of another list of classes."""
  if num_classes is not None and walk.keys[-1] > num_classes:
    return f'`keys` holds {walk.keys[-1]}, but the data set has {num_classes} classes'
  return _size_fault('walk', walk.walk, size)


def _read(
  path: str | os.PathLike, members: dict[str, type], what: str, stage: str
) -> dict[str, np.ndarray]:
  """The members of an archive that holds these and no others."""
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.UserError(f'{path}: no such {what}; run the stage `{stage}` to make it')
  try:
    with np.load(path, allow_pickle=False) as file:
      if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
        raise errors.UserError(f'{path}: not an npz archive')
      if set(file.files) != set(members):
        raise errors.UserError(
          f'{path}: holds {sorted(file.files)}, expected {sorted(members)}; not a {what}'
        )
      return {name: npz.read_array(file.zip, name) for name in members}
  except errors.UserError:
    raise
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    raise errors.UserError(
      f'{path}: cut short or not a {what} ({error}); delete it and run `{stage}` again'
    ) from error


def _size_fault(name: str, maps: np.ndarray, size: tuple[int, int] | None) -> str | None:
  if size is None or maps.shape[1:] == tuple(size):
    return None
  return f'`{name}` is {maps.shape[1:]}, but the image is {tuple(size)} (height, width)'


def exists_complete(path: str | os.PathLike) -> bool:
  """Whether the prior is there and its archive lists every member: what a resumed run may skip.

  Reads the archive's directory, which stands at its end, and no map.
  """
  return _lists(path, _PRIOR)


def exists_walk(path: str | os.PathLike) -> bool:
  """Whether the walk is there and its archive lists every member; as `exists_complete`."""
  return _lists(path, _WALK)


def _lists(path: str | os.PathLike, members: dict[str, type]) -> bool:
  try:
    with zipfile.ZipFile(path) as file:
      return {f'{name}.npy' for name in members} == set(file.namelist())
  except (OSError, zipfile.BadZipFile):
    return False


def check_walk(path: str | os.PathLike, *, size: tuple[int, int], num_classes: int) -> np.ndarray:
  """Refuses what `read_walk` would by headers and keys; decodes no map. Returns the keys."""
  if not exists_walk(path):
    raise errors.UserError(f'{path}: missing, cut short or not a walk')
  try:
    with zipfile.ZipFile(path) as file:
      shape, keys = npz.read_shape(file, 'walk'), npz.read_array(file, 'keys')
  except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise errors.UserError(f'{path}: cut short or not a walk ({error})') from error
  # A view without memory stands for the map.
  walk = Walk(keys, np.broadcast_to(np.float16(0), shape))
  fault = _common_fault(walk, _WALK, 'walk') or _walk_of_fault(walk, size, num_classes)
  if fault is not None:
    raise errors.UserError(f'{path}: {fault}')
  return keys


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file in UTF-8."""
  write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes `value` as indented JSON; numpy scalars and arrays are turned into numbers and lists.

  Raises:
    ValueError: `value` holds NaN or infinity, which JSON has no word for.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_plain) + '\n')


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  raise TypeError(f'cannot write a {type(value).__name__} as JSON')


def write_atomic(
  path: str | os.PathLike, write: Callable[[BinaryIO], Any], *, writer: str = ''
) -> None:
  """Lets `write` fill a temporary file beside `path`, syncs it and renames it to `path`.

  A run killed at any instant leaves the old file or the new one, never a part, and perhaps a hidden
  temporary file. Its name is fixed, so the next run that makes the same file writes over it; where
  several processes may write the same file at once, `writer` names this one.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}{writer}.tmp')
  try:
    with open(temporary, 'wb') as file:
      write(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
