"""A model's weights on disk: one strict `.safetensors`, and ways in for other files.

What a training leaves is `<stage>/weights.safetensors`, which holds the arrays by name
(`params/backbone/stem/conv1/kernel`) and says where they come from.
"""

import hashlib
import json
import os
import pathlib
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from pnoc_jax import errors, trees
from pnoc_jax.io import atomic, foreign, hub, records
from pnoc_jax.nn import backbones, torch_names
from pnoc_jax.types import Variables

FILE = 'weights.safetensors'
# The one entry of the file's metadata. Its order of several is not fixed, and equal weights are
# equal bytes.
_ENTRY = 'pnoc_jax'


def save(
  path: str | os.PathLike, variables: Variables, *, meta: Mapping[str, Any] | None = None
) -> pathlib.Path:
  """Writes weights, whole or not at all; the same bytes for the same weights.

  Args:
    path: a file `*.safetensors`, or a directory, which then receives `weights.safetensors`.
    variables: `{'params': ..., 'batch_stats': ...}`, or any nested dict of arrays.
    meta: what to keep with them, as JSON; `arch` is checked when they are loaded as another's.

  Returns:
    The file that was written.
  """
  path = pathlib.Path(path)
  file = path if path.suffix == '.safetensors' else path / FILE
  # safetensors writes the memory as it lies, whatever an array's strides say.
  arrays = {n: np.asarray(x, order='C') for n, x in trees.flatten_names(variables).items()}
  entry = json.dumps({'meta': dict(meta or {}), 'crc32': _crc32(arrays)})
  content = safetensors.numpy.save(arrays, {_ENTRY: entry})
  atomic.write(file, lambda stream: stream.write(content))
  return file


def torch_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
  """Returns the content of a `.safetensors` that holds a state dict for PyTorch."""
  arrays = {name: np.asarray(x, order='C') for name, x in tensors.items()}
  return safetensors.numpy.save(arrays, {'format': 'pt'})


def _crc32(arrays: Mapping[str, np.ndarray]) -> int:
  value = 0
  for name in sorted(arrays):
    value = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), value))
  return value


def load(path: str | os.PathLike) -> tuple[Variables, dict[str, Any]]:
  """Reads what `save` wrote.

  Args:
    path: the file, or the directory that holds `weights.safetensors`.

  Returns:
    The variables as nested dicts of numpy arrays, and the meta.

  Raises:
    UserError: there is no such file, or it is damaged or of another framework.
  """
  file = find(path)
  arrays, meta = _read(file)
  if meta is None:
    raise _not_ours(file)
  try:
    return trees.unflatten_names(arrays), meta
  except errors.UserError as error:
    raise errors.UserError(f'{file} holds no network: {error}') from error


def load_meta(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the meta of what `save` wrote, and no array; arguments and errors as of `load`."""
  file = find(path)
  _, meta = _read(file, arrays=False)
  if meta is None:
    raise _not_ours(file)
  return meta


def _not_ours(file: pathlib.Path) -> errors.UserError:
  return errors.UserError(
    f'{file} is no weights file of this package. Weights of other frameworks are converted by '
    'launch/import_weights.py.'
  )


def _read(
  file: pathlib.Path, *, arrays: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
  """Returns the arrays of a `.safetensors`, and the meta, or None where `save` did not write it."""
  try:
    with safetensors.safe_open(file, 'numpy') as opened:
      names = opened.keys() if arrays else ()
      # Copies: what is read shall not change with the file.
      found = {name: np.array(opened.get_tensor(name)) for name in names}
      entry = (opened.metadata() or {}).get(_ENTRY)
    if entry is None:
      return found, None
    entry = records.parse_json(entry)
    if arrays and entry['crc32'] != _crc32(found):
      raise ValueError('its checksum differs')
    if not isinstance(entry['meta'], dict):
      raise ValueError('its meta is no JSON object')
    return found, entry['meta']
  # safetensors has SafetensorError, MemoryError, KeyError and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{file} is no safetensors file, or it is damaged ({type(error).__name__}: {error}).'
    ) from error


def find(path: str | os.PathLike) -> pathlib.Path:
  """Returns the file that a path means: itself, or the weights in a directory, or a download.

  Args:
    path: of a file or a directory, or a name such as `hub:timm/resnest269e.in1k`.

  Raises:
    UserError: there is none, or it is of an older version of this package.
  """
  if str(path).startswith(hub.PREFIX):
    return hub.fetch(str(path)).path
  path = pathlib.Path(path)
  try:
    file = path / FILE if path.is_dir() else path
    there, old = file.is_file() and file.suffix != '.npz', foreign.find_old(path)
  except OSError as error:  # A name that is too long, or a directory that may not be entered.
    raise errors.UserError(f'There are no weights at {path} ({error.strerror}).') from error
  if there:
    return file
  if old:
    raise errors.UserError(
      f'{old} holds weights of an older version of this package. Run its stage again '
      '(--config.rerun=STAGE), or convert it: python launch/import_weights.py '
      f'--input={old} --output={old.parent.parent if old.parent.name == "weights" else old.parent}'
    )
  if path.is_dir():
    raise errors.UserError(f'{path} holds no {FILE}: no training has ended there.')
  hint = '; for random weights `init` is empty (init=)' if path.name.lower() == 'none' else ''
  raise errors.UserError(f'There are no weights at {path}{hint}.')


def origin(path: str | os.PathLike) -> dict[str, str]:
  """What weights are, for a run's record: their name, sha256 and, of a download, the commit.

  Raises:
    UserError: as of `find`.
  """
  if str(path).startswith(hub.PREFIX):
    fetched = hub.fetch(str(path))
    return {'name': str(path), 'sha256': fetched.sha256, 'revision': fetched.revision}
  with open(find(path), 'rb') as file:
    return {'name': str(path), 'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


def load_into(path: str | os.PathLike, template: Variables) -> Variables:
  """Reads weights that must equal a template in names, shapes and dtypes.

  Args:
    path: as for `load`.
    template: arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    Numpy arrays in the template's structure.

  Raises:
    UserError: the file is missing, damaged, or of another model; then both sides are named.
  """
  variables, _ = load(path)
  return _merge(path, template, variables)


def load_pretrained(
  path: str | os.PathLike,
  template: Variables,
  *,
  arch: str,
  scratch: Sequence[str] = ('classifier',),
  dropped: Sequence[str] = (),
) -> Variables:
  """Reads a backbone, and whatever else is not to start from scratch, into a model.

  Stages that the model was truncated before are left out; any other difference is an error.

  Args:
    path: our weights (file or directory), or another framework's (`.safetensors`, `.pth`, `hub:`).
    template: the initialised model: `{'params': {'backbone': ..., 'classifier': ...}, ...}`.
    arch: the backbone's name.
    scratch: the model's parts that keep the template's values.
    dropped: parts of the file that the model does not have.

  Returns:
    The template with the file's values.

  Raises:
    UserError: the file is missing, damaged, or of another architecture; then both sides are named.
  """
  file = find(path)
  found, meta = _read_any(file, arch)
  if meta.get('arch', arch) != arch:
    raise errors.UserError(f'{file} holds weights of {meta["arch"]}, but the model is {arch}.')
  expected = trees.flatten_names(template)
  _add_channels(found, expected)
  present = set(template['params']['backbone'])
  absent = [f'backbone/{stage}' for stage in backbones.STAGES if stage not in present]
  left_out = (*absent, *scratch, *dropped)
  found = {n: x for n, x in found.items() if not any(_is_under(n, part) for part in left_out)}
  for name, value in expected.items():
    if any(_is_under(name, part) for part in scratch):
      found[name] = value
  return _merge(file, template, found)


def _read_any(file: pathlib.Path, arch: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the arrays of any file under our names, and its meta; empty where it is foreign.

  Unknown arrays of foreign files keep their names, so that an error tells them.
  """
  if file.suffix == '.safetensors':
    tensors, meta = _read(file)
    if meta is not None:
      return tensors, meta
  else:
    tensors = foreign.read_torch(file)
  tensors = _as_float32(file, tensors)
  ours, unknown = torch_names.from_torch(tensors, backbones.info(arch))
  return ours | {name: tensors[name] for name in unknown}, {}


def _as_float32(file: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays, those of half, brain and double precision as float32; a warning says so."""
  converted = {
    name: x.dtype.name
    for name, x in tensors.items()
    if x.dtype.name in ('float16', 'bfloat16', 'float64')
  }
  if converted:
    kinds = ' and '.join(sorted(set(converted.values())))
    warnings.warn(
      f'{file}: {len(converted)} of {len(tensors)} arrays are {kinds}; they are converted to '
      'float32',
      stacklevel=1,
    )
  return {n: x.astype(np.float32) if n in converted else x for n, x in tensors.items()}


def _add_channels(found: dict[str, Any], expected: Mapping[str, Any]) -> None:
  """Gives the stem's channels beyond red, green and blue the filters of red, as the reference."""
  name = 'params/backbone/stem/conv1/kernel'
  if name in found and name in expected:
    have, want = (np.shape(x)[2] for x in (found[name], expected[name]))
    if have == 3 < want:
      found[name] = np.asarray(found[name])[:, :, [0, 1, 2, *[0] * (want - have)]]


def _is_under(name: str, part: str) -> bool:
  """Whether `params/a/b/c` lies under the part `a/b`."""
  _, _, rest = name.partition('/')
  return rest == part or rest.startswith(f'{part}/')


def _merge(path: str | os.PathLike, template: Variables, found: Any) -> Variables:
  """Returns the found values in the template's structure; an error names the file."""
  try:
    merged = trees.merge_strict(template, found)
  except errors.UserError as error:
    raise errors.UserError(f'{path} does not fit the model: {error}') from error
  _check_finite(path, merged)
  return merged


def _check_finite(path: str | os.PathLike, variables: Variables) -> None:
  wrong = [
    name
    for name, x in trees.flatten_names(variables).items()
    if isinstance(x, np.ndarray) and x.dtype.kind == 'f' and not np.isfinite(x).all()
  ]
  if wrong:
    raise errors.UserError(
      f'{path}: {len(wrong)} arrays hold NaN or infinity, the first is {wrong[0]}: the file is '
      'damaged, or of a training that diverged; take other weights'
    )


def import_weights(path: str | os.PathLike, arch: str = '') -> tuple[Variables, dict[str, Any]]:
  """Reads another framework's backbone and checks it against our own, or our weights of before.

  Args:
    path: `.safetensors`, or `.pth` (needs PyTorch), with the names of torchvision, timm, the
      official ResNeSt or the registry's EfficientNet-Lites, which may end after any stage; or the
      `variables.npz` that an older version of this package wrote, or its directory.
    arch: the backbone's name; our own weights know theirs.

  Returns:
    `{'params': {'backbone': ...}, 'batch_stats': {'backbone': ...}}`, with `classifier` where the
    file has a `classifier.weight`, and the meta: arch, last stage, name of the source. Of an older
    version's weights, all that they hold.

  Raises:
    UserError: the file is missing, damaged, or of another architecture; then both sides are named.
  """
  old = foreign.find_old(pathlib.Path(path))
  if old:
    arrays, meta = foreign.read_old(old)
    if arch and meta.get('arch', arch) != arch:
      raise errors.UserError(f'{old} holds weights of {meta["arch"]}, not of {arch}.')
    variables = trees.unflatten_names(arrays)
    _check_finite(old, variables)
    return variables, meta
  if not arch:
    raise errors.UserError(f'{path}: which backbone is it of? Name it with --arch=NAME.')
  backbones.info(arch)
  file = find(path)
  found, _ = _read_any(file, arch)
  stages = [s for s in backbones.STAGES[1:] if any(_is_under(n, f'backbone/{s}') for n in found)]
  last_stage = stages[-1] if stages else backbones.STAGES[-1]
  module = backbones.make_backbone(arch, backbones.Options(last_stage=last_stage))
  shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  backbone = jax.eval_shape(module.init, jax.random.key(0), shape)
  template = {c: {'backbone': tree} for c, tree in backbone.items()}
  head = 'params/classifier/kernel'
  if head in found:
    template['params']['classifier'] = {'kernel': found[head]}
  variables = _merge(file, template, found)
  return variables, {'arch': arch, 'last_stage': last_stage, 'source': file.name}
