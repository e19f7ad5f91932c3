"""What the stage `affinity` refuses, and what of its network learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import errors, trees
from pnoc_jax.data.streams import pipeline
from pnoc_jax.engine import networks, programs
from pnoc_jax.engine import train as trainer
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.ops import affinity as affinity_ops
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.stages import affinity
from pnoc_jax.stages.common import maps
from tests.stages import contexts
from tests.updates import full_step


def _config():
  config = config_lib.PipelineConfig()
  config.dataset.shapes.size, config.dataset.shapes.train = 32, 8
  config.affinity.model.backbone = 'resnest_tiny'
  config.affinity.model.last_stage = 'layer1'
  config.affinity.batch_size = 4
  return config


def test_crops_whose_grid_holds_no_pair_are_refused():
  config = _config()
  ours = config.affinity
  ours.radius = 4

  def pairs(cells):
    edge = jax.ShapeDtypeStruct((1, cells, cells), jnp.float32)
    return jax.eval_shape(lambda x: affinity_ops.affinities(x, radius=4), edge)

  ours.transform.crop = 14
  assert not affinity.STAGE.faults(config)
  pairs(7)
  ours.transform.crop = 12
  assert 'a radius of at most 3' in affinity.STAGE.faults(config)[0]
  with pytest.raises(ValueError, match='has no pairs in radius 4'):
    pairs(6)


def test_labels_that_are_missing_are_named_before_any_work(tmp_path):
  config = _config()
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  runtime = Runtime(tmp_path, mesh, mesh, RuntimeConfig())
  source = runtime.source(config.dataset, 'train')
  inputs = {'affinity_labels': tmp_path / 'affinity_labels'}
  with pytest.raises(errors.UserError, match=f'{source.ids[0]}.png: missing'):
    contexts.check(affinity.STAGE, config, inputs, tmp_path / 'affinity', runtime)


def test_it_trains_on_the_labels_beside_their_images(one_device, tmp_path, monkeypatch):
  config, seen = _config(), []
  runtime = Runtime(tmp_path, one_device, one_device, RuntimeConfig())
  source = runtime.source(config.dataset, 'train')
  for index, name in enumerate(source.ids):
    path = tmp_path / 'affinity_labels' / 'train' / f'{name}.png'
    maps.write_labels(path, source.mask(index), source.info)

  def spy(program, examples, *_):
    seen.extend((program, examples))
    raise InterruptedError

  monkeypatch.setattr(networks, 'first_variables', full_step.first_variables)
  monkeypatch.setattr(trainer, 'train', spy)
  where = config, {'affinity_labels': tmp_path / 'affinity_labels'}, tmp_path, runtime
  contexts.check(affinity.STAGE, *where)
  with pytest.raises(InterruptedError):
    contexts.run(affinity.STAGE, *where)
  program, examples = seen
  assert float(program.rates['lr'](0)) == np.float32(0.1)
  assert examples.images is pipeline.Images.LABELLED and len(examples.indices) == 8
  np.testing.assert_array_equal(examples.target.read(3, size=(32, 32)), source.mask(3))


def test_the_branch_learns_at_one_rate_and_decays_and_the_backbone_does_neither():
  config = _config()
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  source = Runtime(None, mesh, mesh, RuntimeConfig()).source(config.dataset, 'train')
  template = networks.abstract_variables(affinity.build(config.affinity), source.info)
  params = jax.tree.map(lambda x: np.ones(1, x.dtype), template['params'])
  tx, rate = programs.make_optimizer(
    config.affinity.optim, params, 100, groups=affinity.groups(config.affinity.optim)
  )
  updates, _ = tx.update(params, tx.init(params), params)
  assert float(rate(0)) == np.float32(0.1)
  for name, update in trees.flatten_names(updates).items():
    expected = 0.0 if name.startswith('backbone/') else -0.1 * (1 + 1e-4)
    np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=name)
