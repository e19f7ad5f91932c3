"""Every config builds, is valid, and has the numbers that its golden text says.

The golden text `defaults.txt` has every field of `PipelineConfig()`. The text of a config has the
fields that differ from these defaults, and the text of a config with a word, `configs/x.py:smoke`,
has the fields that the word changes.

After a change that is meant: `python tests/test_configs.py --write`, and read the difference; with
names of configs after it (`pnoc_voc`) only theirs are written.
"""

import ast
import dataclasses
import enum
import pathlib
import sys
import types
import typing
from unittest import mock

import pytest
from absl import flags
from ml_collections import config_flags as ml_flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import _base  # noqa: E402
from pnoc_jax import config as config_lib  # noqa: E402
from pnoc_jax import config_flags  # noqa: E402
from pnoc_jax.engine import settings  # noqa: E402
from pnoc_jax.errors import UserError  # noqa: E402
from pnoc_jax.losses import pnoc as losses  # noqa: E402

GOLDEN = ROOT / 'tests' / 'golden'
EXAMPLES = {'backbone=': 'resnest101', 'method=': 'pnoc'}


def _words(path: pathlib.Path) -> list[str]:
  """The words that a config knows, from what it hands to `_base.parse`; values are examples."""
  with mock.patch.object(_base, 'parse', wraps=_base.parse) as parse:
    config_flags.load(str(path))
  known = parse.call_args_list[0].args[1] if parse.called else {}
  return [f'{word}{EXAMPLES[word]}' if word.endswith('=') else word for word in known]


def _variants() -> list[tuple[pathlib.Path, str | None]]:
  paths = sorted((ROOT / 'configs').glob('[!_]*.py'))
  return [(path, word) for path in paths for word in (None, *_words(path))]


def _name(path: pathlib.Path, argument: str | None) -> str:
  return path.stem if argument is None else f'{path.stem}_{argument}'.replace('=', '_')


def _lines(value, field: str = ''):
  """Yields `dotted.field = value` for every single value of a config."""
  if isinstance(value, dict) and value:
    for name, part in value.items():
      yield from _lines(part, f'{field}.{name}' if field else name)
  elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
    for number, part in enumerate(value):
      yield from _lines(part, f'{field}[{number}]')
  else:
    yield f'{field} = {value!r}'


def _full_lines(path: pathlib.Path, argument: str | None) -> list[str]:
  return list(_lines(settings.as_dict(config_flags.load(str(path), argument))))


def _difference(lines: list[str], base: list[str]) -> list[str]:
  """The lines that `base` lacks, and the names of the fields that `base` alone has."""
  fields = {line.partition(' = ')[0] for line in lines}
  gone = [field for line in base if (field := line.partition(' = ')[0]) not in fields]
  return [line for line in lines if line not in base] + [f'{field} is gone' for field in gone]


def _golden_lines(path: pathlib.Path, argument: str | None) -> list[str]:
  base = DEFAULTS if argument is None else _full_lines(path, None)
  return _difference(_full_lines(path, argument), base)


def _with(fields: dict) -> config_lib.PipelineConfig:
  return settings.override(config_lib.PipelineConfig(), fields)


VARIANTS = _variants()
IDS = [_name(*variant) for variant in VARIANTS]
DEFAULTS = list(_lines(settings.as_dict(config_lib.PipelineConfig())))


def _assert_golden(name: str, lines: list[str]) -> None:
  golden = GOLDEN / f'{name}.txt'
  assert golden.is_file(), f'{golden} is missing: see the head of this file'
  # As lists: pytest then shows the lines that differ. The order of fields means nothing.
  assert sorted(lines) == sorted(golden.read_text(encoding='utf-8').splitlines())


def test_the_defaults_are_as_their_golden_text():
  _assert_golden('defaults', DEFAULTS)


@pytest.mark.parametrize(('path', 'argument'), VARIANTS, ids=IDS)
def test_the_config_is_valid_and_as_its_golden_text(path, argument):
  config = config_flags.load(str(path), argument)
  assert isinstance(config, config_lib.PipelineConfig)
  config_lib.validate(config)
  _assert_golden(_name(path, argument), _golden_lines(path, argument))


@pytest.mark.parametrize('path', sorted({path for path, _ in VARIANTS}), ids=lambda path: path.stem)
def test_the_config_says_how_to_run_it(path):
  text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
  assert f'--config=configs/{path.name}' in text
  with pytest.raises(UserError, match='does not know'):
    config_flags.load(str(path), 'no_such_word')


def test_a_config_that_is_no_python_is_named(tmp_path):
  file = tmp_path / 'config.txt'
  file.write_text('dataset: shapes')
  with pytest.raises(UserError, match='no Python file'):
    config_flags.load(str(file))


def test_every_golden_text_has_its_config():
  assert {path.stem for path in GOLDEN.glob('*.txt')} == {'defaults', *IDS}


def test_each_field_can_be_a_flag():
  """Flags know texts, numbers, choices, tuples, and what of these may be None; nothing frozen."""

  def check(holder, field):
    hints = typing.get_type_hints(type(holder))
    for name, hint in hints.items():
      value = getattr(holder, name)
      if dataclasses.is_dataclass(value):
        assert not value.__dataclass_params__.frozen, f'{field}.{name} cannot be overridden'
        check(value, f'{field}.{name}')
      else:
        parts = set(typing.get_args(hint)) - {type(None)}
        kind = parts.pop() if isinstance(hint, types.UnionType) else hint
        kind = typing.get_origin(kind) or kind
        assert kind in (str, int, float, bool, tuple) or issubclass(kind, enum.Enum), name

  check(config_lib.PipelineConfig(), 'config')


def _parse(monkeypatch, *words):
  """The config of a command line."""
  values = flags.FlagValues()
  holder = ml_flags.DEFINE_config_file('config', flag_values=values)
  monkeypatch.setattr(config_flags.flags, 'FLAGS', values)
  # The flag reads there which fields are given.
  monkeypatch.setattr(sys, 'argv', ['run.py', f'--config={ROOT}/configs/pnoc_shapes.py', *words])
  config_flags.make_parser('config')(sys.argv)
  return holder.value


def test_values_between_commas_make_a_tuple(monkeypatch):
  config = _parse(
    monkeypatch,
    '--config.predictions.splits=val,test',
    '--config.evaluation.of',
    'priors, pseudo_masks',
    '--config.priors.scales=0.5,1',
    '--config.segmentation.head.rates=(2, 4)',
    '--config.only=priors,evaluation',
    '--config.dataset.lists=a,b',
  )
  assert config.predictions.splits == ('val', 'test')
  assert config.evaluation.of == ('priors', 'pseudo_masks')
  assert list(map(repr, config.priors.scales)) == ['0.5', '1.0']
  assert config.segmentation.head.rates == (2, 4)
  assert (config.only, config.dataset.lists) == ('priors,evaluation', 'a,b')


def test_a_flag_can_be_given_once_for_each_value_of_a_tuple(monkeypatch):
  words = ['--config.priors.splits=train', '--config.priors.splits=val']
  assert _parse(monkeypatch, *words).priors.splits == ('train', 'val')


def test_a_text_among_numbers_is_named(monkeypatch, capsys):
  with pytest.raises(SystemExit):
    _parse(monkeypatch, '--config.priors.scales=0.5,one')
  assert '--config.priors.scales=0.5,one: numbers are expected' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    _parse(monkeypatch, '--config.priors.scales=0.5,nan')
  assert '--config.priors.scales=0.5,nan: numbers are expected' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('generator.model.backbone', 'resnest_tinny', "generator.model.backbone is 'resnest_tinny'"),
    ('generator.model.output_stride', 7, 'it is 8 or 16 or 32'),
    ('generator.transform.crop', 500, '480 or 512'),
    ('generator.transform.min_size', 9000, 'is above max_size'),
    ('generator.smoothing', 1.0, 'generator.smoothing'),
    ('generator.threshold', 0.0, 'generator.threshold'),
    ('generator.noc_every', 0, 'generator.noc_every'),
    ('classifier.epochs', 0, 'classifier.epochs'),
    ('classifier.optim.accumulate', 0, 'classifier.optim.accumulate'),
    ('classifier.optim.ema', 1.5, 'classifier.optim.ema'),
    ('priors.scales', (), 'priors.scales'),
    ('priors.batch_size', 0, 'priors.batch_size'),
    ('priors.splits', (), 'priors.splits'),
    ('runtime.save_every', 0, 'runtime.save_every'),
    ('generator.optim.lr', float('nan'), 'generator.optim.lr is nan; it is a finite number'),
    ('random_walk.beta', float('inf'), 'random_walk.beta is inf'),
    ('priors.scales', (1.0, float('nan')), 'priors.scales'),
    ('priors.scales', ('x', 1.0), 'it holds numbers, separated by commas'),
    ('priors.scales', (1e9,), 'up to 16'),
    ('generator.epochs', 10**20, 'a whole number is at most 2147483647'),
    ('seed', 10**20, 'seed is 1000'),
    ('seed', -1, 'seed is -1'),
    ('generator.optim.lr', -1.0, 'generator.optim.lr is -1'),
    ('generator.eval_size', -8, 'generator.eval_size'),
    ('generator.eval_batches', -1, 'generator.eval_batches'),
    ('report.images', -3, 'report.images'),
    ('generator.lambda_area', -0.5, 'generator.lambda_area is -0.5; it is at least 0'),
  ],
)
def test_a_value_that_cannot_run_is_named(field, value, message):
  config = _with({field: value})
  with pytest.raises(UserError, match=message):
    config_lib.validate(config)


@pytest.mark.parametrize(
  ('field', 'value', 'parts'),
  [
    ('noc_views', losses.Views.CONTRAST, 'whose noc trains'),
    ('leak_noc_grad', True, 'whose noc trains'),
    ('lambda_conf', 0.5, 'with tiles'),
  ],
)
def test_an_option_of_a_part_that_a_method_lacks_is_told(field, value, parts):
  config_lib.validate(_with({f'generator.{field}': value}))  # P-NOC has all parts.
  with pytest.raises(UserError, match=rf'generator\.{field} is of methods {parts}'):
    config_lib.validate(_with({f'generator.{field}': value, 'generator.method': 'occse'}))


def test_a_noc_of_contrasts_wants_another_image_in_the_batch():
  views = {'generator.noc_views': losses.Views.CONTRAST}
  config_lib.validate(_with(views | {'generator.batch_size': 2}))
  with pytest.raises(UserError, match=r'generator\.batch_size is 1: .* at least 2 images'):
    config_lib.validate(_with(views | {'generator.batch_size': 1}))


def test_all_faults_are_told_at_once():
  config = _with({'generator.threshold': 2.0, 'priors.batch_size': 0})
  with pytest.raises(UserError, match=r'(?s)generator\.threshold.*priors\.batch_size'):
    config_lib.validate(config)


def _write(names: list[str]) -> None:
  texts = {
    _name(*variant): _golden_lines(*variant)
    for variant in VARIANTS
    if not names or variant[0].stem in names
  }
  if not names:
    texts['defaults'] = DEFAULTS
    for old in GOLDEN.glob('*.txt'):
      old.unlink()
  for name, lines in texts.items():
    (GOLDEN / f'{name}.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')


if __name__ == '__main__':
  if sys.argv[1:2] != ['--write']:
    sys.exit(__doc__)
  _write(sys.argv[2:])
