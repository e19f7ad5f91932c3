"""P-NOC in JAX: from image-level labels to a segmentation model.

`import pnoc_jax as pj` is enough for a notebook. It imports neither jax nor anything that needs it;
each of these names does so when it is first used:

- `pj.ops`, `pj.losses`, `pj.updates`, `pj.predict`: the pure functions, by room and file, such as
  `pj.ops.puzzle.tile(image)`.
- `pj.make_backbone(name)`: a network of `pnoc_jax/nn/backbones.py`.
- `pj.load(run)`: the trained network of a finished run; `pj.load(run).predict(images)` gives
  labels.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pnoc_jax import losses, ops, predict, updates
  from pnoc_jax.nn.backbones import make_backbone
  from pnoc_jax.runs.trained import load

__version__ = '0.1.0'
__all__ = ['load', 'losses', 'make_backbone', 'ops', 'predict', 'updates']

# The modules of what is not a module itself.
_HOMES = {'load': 'runs.trained', 'make_backbone': 'nn.backbones'}


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = importlib.import_module(f'{__name__}.{_HOMES.get(name, name)}')
  return getattr(home, name) if name in _HOMES else home


def __dir__() -> list[str]:
  return ['__version__', *__all__]
