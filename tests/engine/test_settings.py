"""Configs as plain values, and their dotted fields."""

import dataclasses

import numpy as np

from pnoc_jax.data import info
from pnoc_jax.engine import settings


@dataclasses.dataclass
class _Part:
  source: info.Storage = info.Storage.FILES
  sizes: tuple[int, ...] = (1, 2)
  shown: int = settings.field(3, product=False)


@dataclasses.dataclass
class _Whole:
  part: _Part = dataclasses.field(default_factory=_Part)
  looks: _Part = settings.field(_Part, product=False)


def test_enums_are_written_by_value_and_what_no_product_depends_on_can_be_left_out():
  part = {'source': 'files', 'sizes': [1, 2]}
  assert settings.as_dict(_Whole()) == {'part': part | {'shown': 3}, 'looks': part | {'shown': 3}}
  assert settings.as_dict(_Whole(), product_only=True) == {'part': part}
  assert settings.as_dict({'a': (info.Storage.TFDS, np.float32(0.5))}) == {'a': ['tfds', 0.5]}
  assert settings.as_dict(info.DatasetConfig())['source'] == 'files'


def test_a_dotted_field_is_looked_up():
  assert settings.lookup(_Whole(), 'part.sizes') == (1, 2)
