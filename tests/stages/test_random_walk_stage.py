"""Stage `random_walk` on fabricated edges: its files are the dense walk's, whatever stops it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax import errors
from pnoc_jax.engine import loop, networks, per_image
from pnoc_jax.engine.runtime import Runtime, RuntimeConfig
from pnoc_jax.io import images, products, weights
from pnoc_jax.ops import normalize, resize
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.predict import edges
from pnoc_jax.stages import affinity, priors, random_walk
from tests.ops import dense_walk
from tests.stages import contexts

SIZE, CELLS, QUARTERS = 27, 14, 7  # ResNeSt-tiny's edges are at stride 2, the priors at 4.


def _edge(image):
  """A function of the image that stays below 0.7."""
  return 0.6 * jax.nn.sigmoid(image.sum(-1)) + 0.05


def _fake_edges(model, variables, image, size, *, stride, flip):
  del model, variables, flip
  found = _edge(image[:, ::stride, ::stride])
  rows = jnp.arange(found.shape[1])[None, :, None] < -(-size[:, :1, None] // stride)
  columns = jnp.arange(found.shape[2])[None, None] < -(-size[:, 1:, None] // stride)
  return jnp.where(rows & columns, found, 1.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Runs the stage over three images into a directory, with priors and weights beside it."""
  monkeypatch.setattr(edges, 'edges', _fake_edges)
  config = config_lib.PipelineConfig(
    random_walk=random_walk.RandomWalkConfig(radius=3, beta=4.0, exp_times=4, batch_size=2),
    priors=priors.PriorsConfig(splits=('train',)),
  )
  config.dataset.shapes.size, config.dataset.shapes.train = SIZE, 3
  config.affinity.model.backbone = 'resnest_tiny'
  config.affinity.model.last_stage = 'layer1'
  mesh = mesh_lib.make_mesh(jax.devices()[:2])

  def runtime(stop=lambda: False):
    return Runtime(tmp_path, mesh, mesh, RuntimeConfig(), should_stop=stop)

  source = runtime().source(config.dataset, 'train')
  rng = np.random.default_rng(0)
  for index, name in enumerate(source.ids):
    found = np.flatnonzero(source.labels[index])
    low = rng.uniform(size=(len(found), QUARTERS, QUARTERS)).astype(np.float32)
    products.write_prior(
      tmp_path / 'priors' / 'train' / f'{name}.npz',
      np.array([0, *(found + 1)], np.int32),
      low,
      np.zeros((len(found), SIZE, SIZE), np.float16),
      np.zeros(source.info.num_classes, np.float32),
    )
  model = affinity.build(config.affinity)
  template = networks.abstract_variables(model, source.info)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
  weights.save(tmp_path / 'affinity', zeros, meta={'arch': 'resnest_tiny'})
  inputs = {name: tmp_path / name for name in ('priors', 'affinity')}

  def start(out, stop=lambda: False):
    return contexts.run(random_walk.STAGE, config, inputs, tmp_path / out, runtime(stop))

  return start, source, config, tmp_path


def _expected(source, index, prior, options):
  image = source.example(index)['image']
  box = np.array([[0, 0, SIZE, SIZE]], np.int32)
  scaled = normalize.normalize(image[None], box, mean=source.info.mean, std=source.info.std)[0]
  edge = np.asarray(_edge(scaled[::2, ::2]))
  scores = np.asarray(resize.bilinear(np.moveaxis(prior.low, 0, -1), (CELLS, CELLS)))
  walk = dense_walk.dense_walk(scores, edge, **options).astype(np.float32)
  large = np.asarray(resize.bilinear(walk, (2 * CELLS, 2 * CELLS)))[:SIZE, :SIZE]
  return edge, np.moveaxis(large / large.max(), -1, 0)


def test_walks_are_the_dense_ones_and_a_stopped_run_ends_with_the_same_bytes(run):
  start, source, config, root = run
  assert start('whole')['images'] == 3
  options = {name: getattr(config.random_walk, name) for name in ('radius', 'beta', 'exp_times')}
  for index, name in enumerate(source.ids):
    path = per_image.image_path(root / 'whole', 'train', name, '.npz')
    found = products.read_walk(path, size=(SIZE, SIZE), num_classes=source.info.num_classes)
    prior = products.read_prior(root / 'priors' / 'train' / f'{name}.npz')
    np.testing.assert_array_equal(found.keys, prior.keys)
    edge, walk = _expected(source, index, prior, options)
    np.testing.assert_allclose(found.walk, walk, atol=2e-3)
    seen = images.read_mask(random_walk.edge_path(root / 'whole', 'train', name))
    np.testing.assert_allclose(seen, 255 * edge, atol=0.51)

  with pytest.raises(loop.Interrupted):
    start('stopped', stop=lambda: True)
  stopped = root / 'stopped' / 'train'
  assert len(list(stopped.iterdir())) == 1
  assert start('stopped')['images'] == 2
  for path in sorted((root / 'whole').rglob('*.*')):
    assert path.read_bytes() == (root / 'stopped' / path.relative_to(root / 'whole')).read_bytes()


def test_a_prior_of_another_image_is_named_and_refused(run):
  start, source, _, root = run
  path = root / 'priors' / 'train' / f'{source.ids[1]}.npz'
  prior = products.read_prior(path)
  small = np.zeros((len(prior.low), 6, 6), np.float32)
  high = np.zeros((len(prior.low), 24, 24), np.float16)
  products.write_prior(path, prior.keys, small, high, prior.logits)
  with pytest.raises(errors.UserError, match=r'but the image is \(27, 27\)') as error:
    start('out')
  assert str(path) in str(error.value)
  assert not list((root / 'out').rglob(f'{source.ids[1]}.*'))
