"""Reads weights that this package did not write, or wrote in an older version."""

import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from pnoc_jax import errors
from pnoc_jax.io import npz, records

OLD_FILE = 'variables.npz'  # What older versions of this package left in `<stage>/weights/`.
_TORCH_SAFE = (2, 6)  # The first version whose `weights_only` keeps its word (CVE-2025-32434).
_TORCH = ('.pth', '.pt', '.pyth', '.ckpt', '.bin', '.tar')  # `.pth.tar`, not an archive.


def read_torch(file: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a state dict by their names.

  Args:
    file: `.pth` or the like, of the state dict or of a mapping that holds it; needs PyTorch.

  Raises:
    UserError: the file is of another kind, damaged, or holds more than weights.
  """
  if file.suffix == '.params':
    raise errors.UserError(
      f'{file} is of MXNet, which is not read here: convert it with `convert_mxnet_to_torch` of '
      'psa (github.com/jiwoon-ahn/psa, network/resnet38d.py), where MXNet and PyTorch are, save '
      'what it returns with torch.save to a .pth, and import that.'
    )
  if file.suffix not in _TORCH:
    raise errors.UserError(
      f'{file}: unknown kind of weights; known are .safetensors, {", ".join(_TORCH)}.'
    )
  try:
    import torch  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise errors.UserError(
      f'{file} needs PyTorch to be read: pip install "pnoc-jax[torch]", or convert it to '
      f'.safetensors where PyTorch is.'
    ) from error
  if tuple(map(int, re.findall(r'\d+', torch.__version__)[:2])) < _TORCH_SAFE:
    raise errors.UserError(
      f'{file} is not read with PyTorch {torch.__version__}: before 2.6 a file could run code when '
      "it was read. pip install --upgrade 'torch>=2.6', or convert the file to .safetensors."
    )
  try:
    loaded = torch.load(file, map_location='cpu', weights_only=True)
  # PyTorch has OSError, RuntimeError, UnpicklingError and more for broken files.
  except Exception as error:
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
    # numpy has no bfloat16; all other types are converted where the names are known.
    brain = torch.bfloat16
    found = {name: tensor.detach() for name, tensor in loaded.items()}
    return {n: (x.float() if x.dtype == brain else x).numpy() for n, x in found.items()}
  except TypeError as error:
    raise errors.UserError(f'{file}: numpy has no such type ({error}); store float32.') from error


def find_old(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the weights of an older version of this package that a path means, if any."""
  for file in (path, path / OLD_FILE, path / 'weights' / OLD_FILE):
    if file.suffix == '.npz' and file.is_file():
      return file
  return None


def read_old(file: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Reads the weights of an older version of this package.

  Args:
    file: `variables.npz`.

  Returns:
    The arrays by their names, and the meta.

  Raises:
    UserError: the file is damaged or of another origin.
  """
  try:
    with zipfile.ZipFile(file) as archive:
      names = [name.removesuffix('.npy') for name in archive.namelist()]
      arrays = {name: npz.read_array(archive, name) for name in names}
    meta = records.parse_json(str(arrays.pop('__meta__')))
    if not isinstance(meta, dict):
      raise ValueError('its meta is no JSON object')
    return arrays, meta
  # zipfile has BadZipFile, RuntimeError, NotImplementedError, zlib.error and more for broken files.
  except Exception as error:
    raise errors.UserError(
      f'{file} is no weights file of this package, or it is damaged '
      f'({type(error).__name__}: {error}).'
    ) from error
