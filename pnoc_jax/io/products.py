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

STRIDE = 4  # Of a prior's low maps.
_MEMBERS = {'keys': np.int32, 'low': np.float32, 'high': np.float16, 'logits': np.float32}


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
  fault = _prior_fault(prior)
  if fault:
    raise ValueError(f'not written to {path}: {fault}')

  def write(file: BinaryIO) -> None:
    # numpy dates every member 1980-01-01, so no clock enters the bytes.
    np.savez_compressed(file, **prior._asdict())

  write_atomic(path, write)


def _prior_fault(prior: Prior) -> str | None:
  for name, dtype in _MEMBERS.items():
    if getattr(prior, name).dtype != dtype:
      found = getattr(prior, name).dtype
      return f'`{name}` is {found}, expected {np.dtype(dtype)}'
  keys, low, high, logits = prior
  if keys.ndim != 1 or len(keys) < 2 or keys[0] != 0 or not np.all(np.diff(keys) > 0):
    return f'`keys` is {keys.tolist()}, expected 0 and then one or more ascending classes'
  if high.ndim != 3 or not high.size or len(high) != len(keys) - 1:
    return f'`high` is {high.shape}, expected [{len(keys) - 1}, H, W] beside {len(keys)} keys'
  strided = (len(high), *(-(-n // STRIDE) for n in high.shape[1:]))
  if low.shape != strided:
    return f'`low` is {low.shape}, expected {strided} beside `high` {high.shape}'
  if logits.ndim != 1 or len(logits) < keys[-1]:
    return f'`logits` is {logits.shape}, expected one a class, and `keys` holds {keys[-1]}'
  for name in ('low', 'high', 'logits'):
    if not np.isfinite(getattr(prior, name)).all():
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
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.UserError(f'{path}: no such prior; run the stage `priors` to make it')
  try:
    with np.load(path, allow_pickle=False) as file:
      if not isinstance(file, np.lib.npyio.NpzFile):
        raise errors.UserError(f'{path}: not an npz archive')
      if set(file.files) != set(_MEMBERS):
        raise errors.UserError(
          f'{path}: holds {sorted(file.files)}, expected {sorted(_MEMBERS)}; not a prior'
        )
      prior = Prior(**{name: file[name] for name in _MEMBERS})
  except errors.UserError:
    raise
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    raise errors.UserError(
      f'{path}: cut short or not a prior ({error}); delete it and run `priors` again'
    ) from error
  fault = _prior_fault(prior)
  if fault is None and size is not None and prior.high.shape[1:] != tuple(size):
    fault = f'`high` is {prior.high.shape[1:]}, but the image is {tuple(size)} (height, width)'
  if fault is None and num_classes is not None and len(prior.logits) != num_classes:
    fault = f'it is of {len(prior.logits)} classes, but the data set has {num_classes}'
  if fault is not None:
    raise errors.UserError(f'{path}: {fault}')
  return prior


def exists_complete(path: str | os.PathLike) -> bool:
  """Whether the prior is there and its archive lists every member: what a resumed run may skip.

  Reads the archive's directory, which stands at its end, and no map.
  """
  try:
    with zipfile.ZipFile(path) as file:
      return {f'{name}.npy' for name in _MEMBERS} == set(file.namelist())
  except (OSError, zipfile.BadZipFile):
    return False


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


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
  """Lets `write` fill a temporary file beside `path`, syncs it and renames it to `path`.

  A run killed at any instant leaves the old file or the new one, never a part. The temporary name
  is fixed, so the next run of the same product writes over what was left behind.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.tmp')
  with open(temporary, 'wb') as file:
    write(file)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
