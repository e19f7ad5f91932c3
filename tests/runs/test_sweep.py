import json
import pathlib

import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.errors import UserError
from pnoc_jax.runs import sweep


def test_an_override_sets_dotted_fields_of_a_copy():
  config = config_lib.PipelineConfig()
  fields = {'seed': 3, 'generator.optim.lr': 0.5, 'inputs.classifier': '{workdir}/a/classifier'}
  ours = sweep.override(config, fields, pathlib.Path('runs/x'))
  assert (ours.seed, ours.generator.optim.lr) == (3, 0.5)
  assert ours.inputs.classifier == 'runs/x/a/classifier'
  assert config == config_lib.PipelineConfig()
  assert ours.classifier == config.classifier


def test_an_override_of_no_field_is_an_error():
  for field in ('generator.optim.rate', 'generatr.optim.lr'):
    with pytest.raises(UserError, match=field):
      sweep.override(config_lib.PipelineConfig(), {field: 1}, pathlib.Path())


def test_a_sweep_runs_each_variant_in_its_own_directory(tmp_path):
  config = config_lib.PipelineConfig(name='table')
  config.sweep = tuple(
    config_lib.Variant(group, f'{group}-{seed}', {'seed': seed})
    for group in ('a', 'b')
    for seed in (0, 1)
  )
  seen = []

  def run(ours, workdir):
    assert ours.sweep == ()
    workdir.mkdir()
    (workdir / 'config.json').write_text(json.dumps({'name': ours.name}))
    seen.append((ours.name, ours.seed, workdir.relative_to(tmp_path).as_posix()))

  sweep.execute(config, tmp_path, run)
  assert seen == [(n, s, n) for n, s in (('a-0', 0), ('a-1', 1), ('b-0', 0), ('b-1', 1))]
  assert (tmp_path / 'report' / 'index.html').is_file()
