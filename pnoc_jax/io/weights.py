"""A model's weights on disk: one strict flat npz, and the readers of other frameworks' files.

What a stage leaves in `<stage>/weights/` is `variables.npz`, whose members are the arrays by name
(`params/backbone/stem/conv1/kernel`), and `meta.json`, which says where they come from.
"""

import json
import os
import pathlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from pnoc_jax import errors, trees
from pnoc_jax.io import atomic, hub, records
from pnoc_jax.nn import backbones, torch_names
from pnoc_jax.types import Variables

FILE = 'variables.npz'
_META = '__meta__'  # The npz member that holds the meta as JSON: the file is whole by itself.
_TORCH = ('.pth', '.pt', '.pyth', '.ckpt', '.bin', '.tar')  # `.pth.tar`, not an archive.


def save(
  path: str | os.PathLike, variables: Variables, *, meta: Mapping[str, Any] | None = None
) -> pathlib.Path:
  """Writes weights, whole or not at all.

  Args:
    path: a file `*.npz`, or a directory, which then receives `variables.npz` and `meta.json`.
    variables: `{'params': ..., 'batch_stats': ...}`.
    meta: what to keep with them, as JSON; `arch` is checked when they are loaded as another's.

  Returns:
    The npz that was written.
  """
  path, meta = pathlib.Path(path), dict(meta or {})
  arrays = {name: np.asarray(x) for name, x in trees.flatten_names(variables).items()}
  arrays[_META] = np.asarray(json.dumps(meta))
  file = path if path.suffix == '.npz' else path / FILE
  atomic.write(file, lambda stream: np.savez(stream, **arrays))
  if file != path:
    records.write_json(path / 'meta.json', meta)
  return file


def load(path: str | os.PathLike) -> tuple[Variables, dict[str, Any]]:
  """Reads what `save` wrote.

  Args:
    path: the npz, or the directory that holds `variables.npz`.

  Returns:
    The variables as nested dicts of numpy arrays, and the meta.

  Raises:
    UserError: there is no such file, or it is damaged.
  """
  file = find(path)
  try:
    with np.load(file, allow_pickle=False) as members:
      arrays = {name: members[name] for name in members.files}
    meta = json.loads(str(arrays.pop(_META)))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise errors.UserError(
      f'{file} is no weights file of this package, or it is damaged ({error}). Weights of other '
      f'frameworks are converted by launch/import_weights.py.'
    ) from error
  return trees.unflatten_names(arrays), meta


def find(path: str | os.PathLike) -> pathlib.Path:
  """Returns the file that a path means: itself, or the weights in a directory, or a download.

  Args:
    path: of a file or a directory, or a name such as `hub:timm/resnest269e.in1k`.

  Raises:
    UserError: there is none.
  """
  if str(path).startswith(hub.PREFIX):
    return hub.fetch(str(path))
  path = pathlib.Path(path)
  if path.is_dir():
    for file in (path / FILE, path / 'weights' / FILE):
      if file.is_file():
        return file
    raise errors.UserError(f'{path} holds no {FILE}.')
  if not path.is_file():
    raise errors.UserError(f'There are no weights at {path}.')
  return path


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
  report: Callable[[str], None] | None = None,
) -> Variables:
  """Reads a backbone, and whatever else is not to start from scratch, into a model.

  Stages that the model was truncated before are left out; any other difference is an error.

  Args:
    path: our weights (npz or directory), or another framework's (`.safetensors`, `.pth`, `hub:`).
    template: the initialised model: `{'params': {'backbone': ..., 'classifier': ...}, ...}`.
    arch: the backbone's name.
    scratch: the model's parts that keep the template's values.
    dropped: parts of the file that the model does not have.
    report: receives a line about each part of the file that is left out.

  Returns:
    The template with the file's values.

  Raises:
    UserError: the file is missing, damaged, or of another architecture; then both sides are named.
  """
  file = find(path)
  if file.suffix == '.npz':
    variables, meta = load(file)
    if meta.get('arch', arch) != arch:
      raise errors.UserError(f'{file} holds weights of {meta["arch"]}, but the model is {arch}.')
    found = trees.flatten_names(variables)
  else:
    found = _read_foreign(file, arch)
  expected = trees.flatten_names(template)
  _add_channels(found, expected)
  present = set(template['params']['backbone'])
  absent = [stage for stage in backbones.STAGES if stage not in present]
  for part in [*(f'backbone/{stage}' for stage in absent), *scratch, *dropped]:
    left_out = [name for name in found if _is_under(name, part)]
    for name in left_out:
      del found[name]
    if left_out and report:
      report(f'{file}: left out {part} ({len(left_out)} arrays).')
  for name, value in expected.items():
    if any(_is_under(name, part) for part in scratch):
      found[name] = value
  return _merge(file, template, found)


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
    return trees.merge_strict(template, found)
  except errors.UserError as error:
    raise errors.UserError(f'{path} does not fit the model: {error}') from error


def import_foreign(path: str | os.PathLike, arch: str) -> tuple[Variables, dict[str, Any]]:
  """Reads another framework's backbone and checks it against our own.

  Args:
    path: `.safetensors`, or `.pth` (needs PyTorch), with the names of torchvision, timm or the
      official ResNeSt. It may end after any stage.
    arch: the backbone's name.

  Returns:
    `{'params': {'backbone': ...}, 'batch_stats': {'backbone': ...}}`, with `classifier` where the
    file has a `classifier.weight`, and the meta: arch, last stage, name of the source.

  Raises:
    UserError: the file is missing, damaged, or of another architecture; then both sides are named.
  """
  backbones.info(arch)
  file = find(path)
  found = _read_foreign(file, arch)
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


def _read_foreign(file: pathlib.Path, arch: str) -> dict[str, np.ndarray]:
  """Returns a foreign file's arrays under our names; unknown ones keep theirs, to be reported."""
  if file.suffix == '.safetensors':
    tensors = _read_safetensors(file)
  elif file.suffix in _TORCH:
    tensors = _read_torch(file)
  elif file.suffix == '.params':
    raise errors.UserError(
      f'{file} is of MXNet, which is not read here: convert it with `convert_mxnet_to_torch` of '
      'psa (github.com/jiwoon-ahn/psa, network/resnet38d.py), where MXNet and PyTorch are, save '
      'what it returns with torch.save to a .pth, and import that.'
    )
  else:
    raise errors.UserError(
      f'{file}: unknown kind of weights; known are .npz, .safetensors, {", ".join(_TORCH)}.'
    )
  ours, unknown = torch_names.from_torch(tensors, backbones.info(arch))
  return ours | {name: tensors[name] for name in unknown}


def _read_safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(file)
  except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(f'{file} is no safetensors file, or it is damaged ({error}).') from error


def _read_torch(file: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise errors.UserError(
      f'{file} needs PyTorch to be read: pip install "pnoc-jax[torch]", or convert it to '
      f'.safetensors where PyTorch is.'
    ) from error
  try:
    loaded = torch.load(file, map_location='cpu', weights_only=True)
  except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
    reason = re.split(r'[.\n]', str(error), maxsplit=1)[0]
    raise errors.UserError(
      f'{file} is no file of PyTorch weights, or it is damaged, or it holds more than weights '
      f'({reason}).'
    ) from error
  for key in ('state_dict', 'model', 'model_state_dict'):
    if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
      loaded = loaded[key]
  if not isinstance(loaded, Mapping) or not all(torch.is_tensor(t) for t in loaded.values()):
    raise errors.UserError(f'{file} holds no state dict (a mapping of names to tensors).')
  try:
    return {name: tensor.detach().numpy() for name, tensor in loaded.items()}
  except TypeError as error:
    raise errors.UserError(f'{file}: numpy has no such type ({error}); store float32.') from error
