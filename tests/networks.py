"""Makes the backbones of tests: rows of the table, narrowed, with options by name."""

import dataclasses

from pnoc_jax.nn import backbones, trunk

_SIZES = ('blocks', 'widths', 'stem_width')


def make_backbone(arch: str, **changes) -> trunk.Backbone:
  """Makes a backbone; `changes` are fields of its row (the sizes) or of its options."""
  sizes = {name: changes.pop(name) for name in _SIZES if name in changes}
  sizes = {name: tuple(x) if name != 'stem_width' else x for name, x in sizes.items()}
  row = dataclasses.replace(backbones.info(arch), **sizes)
  return backbones.make_backbone(row, backbones.Options(**changes))
