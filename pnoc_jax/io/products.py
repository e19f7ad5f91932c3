"""The priors and the random walks on disk: one npz an image, read with every assumption checked.

Numpy only: data workers import this file.
"""

import io
import operator
import os
import pathlib
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import atomic, npz

STRIDE = 4  # Of a prior's low maps.
_MOST_KEYS = 256
_LEVEL = 1
"""Of the compression."""
_CODED = 'low', 'high', 'walk', 'cells'
"""What is written as `npz.encode` codes it, u8; files of versions before hold the floats."""
_CELLS = 'cells'
"""What a walk's file may have besides, f32[P, h, w]: the walk is coded by how it differs."""
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


Product = TypeVar('Product', Prior, Walk)


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


def write_walk(
  path: str | os.PathLike, keys: np.ndarray, walk: np.ndarray, cells: np.ndarray | None = None
) -> None:
  """Writes one image's walk: compressed npz, the same bytes for the same arrays.

  Args:
    path: `<id>.npz`; its folder is made.
    keys: i32[P+1].
    walk: f16[P, H, W].
    cells: f32[P, h, w], which make the walk when they are enlarged, but for rounding. With them the
      file takes a fourth.

  Raises:
    ValueError: a dtype, a shape or a value is not as `Walk` says.
  """
  product = Walk(*map(np.asarray, (keys, walk)))
  fault = _walk_fault(product) or (None if cells is None else _cells_fault(cells, walk.shape))
  _write(path, product, fault, cells)


def _write(
  path: str | os.PathLike,
  product: Prior | Walk,
  fault: str | None,
  cells: np.ndarray | None = None,
) -> None:
  fault = fault or _finite_fault(product, product._fields)
  if fault:
    raise ValueError(f'not written to {path}: {fault}')
  arrays = product._asdict() | ({} if cells is None else {_CELLS: cells})
  atomic.write(path, lambda file: _pack(file, arrays), sync_folder=False)


def _pack(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an npz as numpy does, with less work."""
  expected = {}
  if _CELLS in arrays:
    expected = {'walk': npz.enlarged(arrays[_CELLS], arrays['walk'].shape[1:])}
  with zipfile.ZipFile(file, 'w') as archive:
    for name, array in arrays.items():
      member, coded = io.BytesIO(), array
      if name in _CODED:
        coded = npz.encode(array, expected.get(name))
      np.lib.format.write_array(member, coded, allow_pickle=False)
      # A member without a date has that of 1980-01-01, so no clock enters the bytes.
      info = zipfile.ZipInfo(f'{name}.npy')
      archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, _LEVEL)


def _cells_fault(cells: np.ndarray, shape: tuple[int, ...]) -> str | None:
  fits = cells.ndim == 3 and cells.size and len(cells) == shape[0]
  if fits and cells.dtype == np.float32 and all(map(operator.le, cells.shape, shape)):
    return None
  return f'`cells` is {cells.dtype}{list(cells.shape)} beside a walk of {shape}'


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
  return None


def _walk_fault(walk: Walk) -> str | None:
  return _common_fault(walk, _WALK, 'walk')


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


def _finite_fault(product: Prior | Walk, names: Collection[str]) -> str | None:
  for name in names:
    if not np.isfinite(getattr(product, name)).all():
      return f'`{name}` holds NaN or infinity'
  return None


def read_prior(
  path: str | os.PathLike,
  *,
  size: tuple[int, int] | None = None,
  num_classes: int | None = None,
  arrays: Collection[str] = ('low', 'high', 'logits'),
) -> Prior:
  """Reads what `write_prior` wrote, and nothing else; never unpickles.

  Args:
    path: `<id>.npz`.
    size: the image's (H, W), to be checked against the maps.
    num_classes: C without the background, to be checked against the logits.
    arrays: those to decompress besides `keys`. In place of any other stands an array of the true
      shape and dtype that holds NaN and takes no memory; its shape and dtype are checked, too.

  Raises:
    UserError: the file is missing, cut short, foreign or of another image; names file and fault.
  """

  def fault(prior: Prior) -> str | None:
    found = _prior_fault(prior) or _size_fault('high', prior.high, size)
    if found is None and num_classes is not None and len(prior.logits) != num_classes:
      found = f'it is of {len(prior.logits)} classes, but the data set has {num_classes}'
    return found

  return _read(path, Prior, arrays, fault, _Kind('prior', 'priors', _PRIOR, ()))


def read_walk(
  path: str | os.PathLike,
  *,
  size: tuple[int, int] | None = None,
  num_classes: int | None = None,
  arrays: Collection[str] = ('walk',),
) -> Walk:
  """Reads what `write_walk` wrote, and nothing else; never unpickles.

  Args:
    path: `<id>.npz`.
    size: the image's (H, W), to be checked against the map.
    num_classes: C without the background, to be checked against the keys.
    arrays: those to decompress besides `keys`, as of `read_prior`; () checks the file by headers.

  Raises:
    UserError: the file is missing, cut short, foreign or of another image; names file and fault.
  """

  def fault(walk: Walk) -> str | None:
    found = _walk_fault(walk) or _size_fault('walk', walk.walk, size)
    if found is None and num_classes is not None and walk.keys[-1] > num_classes:
      found = f'`keys` holds {walk.keys[-1]}, but the data set has {num_classes} classes'
    return found

  return _read(path, Walk, arrays, fault, _Kind('walk', 'random_walk', _WALK, (_CELLS,)))


class _Kind(NamedTuple):
  """What a product is called, and the stage that makes it.

  Attributes:
    what: it is called.
    stage: its name.
    members: the dtypes of its arrays.
    beside: other arrays that its file may have, all or none.
  """

  what: str
  stage: str
  members: dict[str, type]
  beside: tuple[str, ...]


def _read(
  path: str | os.PathLike,
  make: Callable[..., Product],
  arrays: Collection[str],
  fault: Callable[[Product], str | None],
  kind: _Kind,
) -> Product:
  """Reads an archive of the kind's members; what its headers say is checked before the rest."""
  what, stage, members, beside = kind
  if not set(arrays) <= set(members):
    raise ValueError(f'arrays={tuple(arrays)}; a {what} has {tuple(members)}')
  path = pathlib.Path(path)
  if not path.is_file():
    raise errors.UserError(f'{path}: no such {what}; run the stage `{stage}` to make it')
  try:
    with zipfile.ZipFile(path) as file:
      found = sorted(name.removesuffix('.npy') for name in file.namelist())
      if found not in (sorted(members), sorted([*members, *beside])):
        raise errors.UserError(f'{path}: holds {found}, expected {sorted(members)}; not a {what}')
      headers = {name: _unread(file, name, dtype) for name, dtype in members.items()}
      if headers['keys'].size > _MOST_KEYS:
        raise ValueError(f'`keys` has {headers["keys"].size} entries')
      product: Any = make(**headers | {'keys': npz.read_array(file, 'keys')})
      said = fault(product)
      if said is None:
        product = product._replace(**{x: _array(file, x, members[x]) for x in arrays})
        said = _finite_fault(product, arrays)
  except errors.UserError:
    raise
  # zipfile has BadZipFile, RuntimeError, NotImplementedError, zlib.error and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{path}: cut short or not a {what} ({type(error).__name__}: {error}); delete it and run '
      f'`{stage}` again'
    ) from error
  if said is not None:
    raise errors.UserError(f'{path}: {said}')
  return product


def _unread(file: zipfile.ZipFile, name: str, dtype: type) -> np.ndarray:
  """An array that takes no memory, of the shape and dtype of the archive's; it holds NaN."""
  found, shape = npz.read_header(file, name)
  if _is_coded(name, found, shape, dtype):
    found, shape = np.dtype(dtype), shape[1:]
  filler = np.array(np.nan if np.issubdtype(found, np.floating) else 0, found)
  return np.broadcast_to(filler, shape)


def _array(file: zipfile.ZipFile, name: str, dtype: type) -> np.ndarray:
  found = npz.read_array(file, name)
  if not _is_coded(name, found.dtype, found.shape, dtype):
    return found
  expected = None
  if name == 'walk' and f'{_CELLS}.npy' in file.namelist():
    fault = _cells_fault(_unread(file, _CELLS, np.float32), found.shape[1:])
    if fault:
      raise ValueError(fault)
    expected = npz.enlarged(_array(file, _CELLS, np.float32), found.shape[2:])
  return npz.decode(found, dtype, expected)


def _is_coded(name: str, found: np.dtype, shape: tuple[int, ...], dtype: type) -> bool:
  """Whether an array is `npz.encode`'s of one that has a dtype."""
  planes = np.dtype(dtype).itemsize
  return name in _CODED and found == np.uint8 and len(shape) == 4 and shape[0] == planes


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
  return _lists(path, _WALK) or _lists(path, [*_WALK, _CELLS])


def _lists(path: str | os.PathLike, members: Collection[str]) -> bool:
  try:
    with zipfile.ZipFile(atomic.require_file(path)) as file:
      return {f'{name}.npy' for name in members} == set(file.namelist())
  except Exception:  # Damage shows as any of a dozen types.
    return False
