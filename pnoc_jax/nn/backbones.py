"""Builds any backbone from its name: the one table of names.

```
backbone = backbones.make_backbone('resnest101', backbones.Options(output_stride=16))
features, valids = backbone.apply(variables, image, train=False)
features['layer4']  # [B, H / 16, W / 16, 2048]
```
"""

import difflib

import flax.linen as nn

from pnoc_jax import errors
from pnoc_jax.nn import efficientnet_lite, resnest, resnet, resnet38d, trunk, vit

STAGES = trunk.STAGES
Options = trunk.Options
Row = trunk.Row

_ROWS = (*resnet.ROWS, *resnest.ROWS, *resnet38d.ROWS, *efficientnet_lite.ROWS, *vit.ROWS)
TABLE = {row.name: row for row in _ROWS}


def names() -> list[str]:
  """Returns the names of all backbones."""
  return list(TABLE)


def info(name: str) -> Row:
  """Returns the table's row of a backbone.

  Raises:
    UserError: if there is none of that name.
  """
  if name not in TABLE:
    near = difflib.get_close_matches(name, TABLE, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.UserError(f'There is no backbone {name!r}.{hint} Known: {", ".join(TABLE)}.')
  return TABLE[name]


_PLAIN = Options()


def make_backbone(name: str | Row, options: Options = _PLAIN) -> nn.Module:
  """Builds a backbone.

  Args:
    name: one of `names()`, or a row, e.g. `dataclasses.replace(info(name), widths=...)`.
    options: how it is built.

  Returns:
    A module `(image, valid=None, *, train) -> (features, valids)`; see `trunk.Backbone`.

  Raises:
    UserError: for an unknown name, stage or output stride.
  """
  row = info(name) if isinstance(name, str) else name
  if len(row.blocks) != 4 or len(row.widths) != 4:
    raise errors.UserError(f'blocks={row.blocks} and widths={row.widths} must have four numbers.')
  if options.output_stride not in row.output_strides:
    known = ' or '.join(map(str, row.output_strides))
    raise errors.UserError(
      f'output_stride is {options.output_stride}; of {row.name} it must be {known} '
      '(--config.STAGE.model.output_stride).'
    )
  if options.last_stage not in STAGES[1:]:
    raise errors.UserError(f'last_stage is {options.last_stage!r}; it must be one of {STAGES[1:]}.')
  if not 0 <= options.frozen_stages <= len(STAGES):
    raise errors.UserError(
      f'frozen_stages is {options.frozen_stages}; it must be in 0..{len(STAGES)}.'
    )
  return (row.make or trunk.Backbone)(row, options)
