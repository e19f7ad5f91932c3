"""docs/options.md names fields that there are, and all values of those that have a few."""

import enum
import pathlib
import re

import pytest

from pnoc_jax import config as config_lib

_TEXT = (pathlib.Path(__file__).parents[1] / 'docs' / 'options.md').read_text(encoding='utf-8')


def _rows():
  """Yields (field, values named beside it) of the first field of each row."""
  prefix = ''
  for line in _TEXT.splitlines():
    if head := re.match(r'\| option \| `--config\.([\w.]*)` \|', line):
      prefix = head.group(1)
    elif line.startswith('| ') and (cells := line.split(' | '))[1].startswith('`'):
      field = prefix + re.match(r'`([\w.]+?)(?:\.\*)?`', cells[1]).group(1)
      values = re.findall(r'`([\w-]+)`', cells[2].partition(';')[0]) if len(cells) > 2 else []
      yield field.replace('STAGE.crf', 'predictions.crf').replace('STAGE', 'generator'), values


ROWS = list(_rows())


def test_the_tables_are_read():
  assert (
    len(ROWS) > 30 and ('generator.mix.kind', ['none', 'cutmix', 'mixup', 'cut_or_mix']) in ROWS
  )


@pytest.mark.parametrize(('field', 'values'), ROWS, ids=[field for field, _ in ROWS])
def test_the_option_is_a_field_with_these_values(field, values):
  value = config_lib.PipelineConfig()
  for name in field.split('.'):
    value = getattr(value, name)
  if isinstance(value, enum.Enum):
    assert set(values) == {choice.value for choice in type(value)}
