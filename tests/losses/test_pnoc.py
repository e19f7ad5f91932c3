"""The losses of P-NOC, Eqs. 1 to 3, called as anyone can call them, against those of `tiny`."""

import functools

import jax
import numpy as np
import pytest

from pnoc_jax.losses import pnoc
from tests.updates import tiny

LAMBDA_RE, LAMBDA_CSE, LAMBDA_NOC = 3.0, 5.0, 0.4
PICKED = np.eye(tiny.CLASSES, dtype=np.float32)[[0, 1, 2, 0]]
_close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


@pytest.fixture(scope='module')
def oracle():
  """Both networks' variables, a batch, and the loss of the generator with its gradients."""
  ours, theirs, batch = tiny.variables(1), tiny.variables(2), tiny.batch()

  def loss(params, noc_params):
    stats = ours['batch_stats'], theirs['batch_stats']
    return tiny.generator_loss(params, noc_params, *stats, batch, PICKED, LAMBDA_RE, LAMBDA_CSE)

  graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  return ours, theirs, batch, graded(ours['params'], theirs['params'])


def _loss(ours, theirs, batch, *, tiles=True, judge=True, **terms):
  """The generator's loss as a function of both networks' params."""

  def loss(params, noc_params):
    judged_by = None
    if judge:
      variables = {**theirs, 'params': noc_params}
      judged_by = pnoc.Judge(tiny.Net(frozen=True), variables, PICKED, LAMBDA_CSE)
    return pnoc.generator_loss(
      params,
      ours['batch_stats'],
      batch,
      model=tiny.Net(),
      lambda_re=LAMBDA_RE if tiles else None,
      judge=judged_by,
      terms=pnoc.Terms(smoothing=tiny.ALPHA, **terms),
    )

  return loss


def _noc_loss(params, theirs, batch, cam, **terms):
  """The noc's loss of images from which the generator's maps `cam` are cut."""
  return pnoc.noc_loss(
    params,
    theirs['batch_stats'],
    batch,
    model=tiny.Net(frozen=True),
    erasure=pnoc.Erasure(cam, PICKED),
    lambda_noc=LAMBDA_NOC,
    threshold=tiny.DELTA,
    terms=pnoc.Terms(smoothing=tiny.ALPHA, **terms),
  )


def test_the_generators_loss_and_its_gradients_are_the_papers(oracle):
  ours, theirs, batch, ((total, (cam, stats, terms)), expected) = oracle
  graded = jax.jit(jax.value_and_grad(_loss(ours, theirs, batch), argnums=(0, 1), has_aux=True))
  (loss, (batch_stats, metrics, seen)), grads = graded(ours['params'], theirs['params'])
  _close(loss, total)
  assert metrics.keys() == terms.keys() - {'loss/total'}
  for name, value in metrics.items():
    _close(value, terms[name], err_msg=name)
  jax.tree.map(_close, (batch_stats, grads), (stats, expected))
  _close(seen.cam, cam)
  mask = tiny.masks(cam, PICKED, over_batch=True)
  judged, _ = tiny.forward(
    theirs['params'], theirs['batch_stats'], batch['image'] * (1 - mask), train=False
  )
  _close(seen.judged, judged.mean((1, 2)))


@pytest.mark.parametrize('judge', [False, True])
@pytest.mark.parametrize('tiles', [False, True])
def test_a_method_without_a_part_lacks_its_terms(oracle, tiles, judge):
  ours, theirs, batch, ((_, (_, _, terms)), _) = oracle
  loss = jax.jit(_loss(ours, theirs, batch, tiles=tiles, judge=judge))
  total, (_, metrics, seen) = loss(ours['params'], theirs['params'])
  weights = {'loss/cls': 1.0}
  weights |= {'loss/cls_re': 1.0, 'loss/re': LAMBDA_RE} if tiles else {}
  weights |= {'loss/cse': LAMBDA_CSE} if judge else {}
  assert metrics.keys() == weights.keys()
  _close(total, sum(weight * terms[name] for name, weight in weights.items()))
  assert (seen.judged is None) == (not judge)


def test_the_area_of_the_maps_has_its_price(oracle):
  ours, theirs, batch, ((total, (cam, _, _)), _) = oracle
  loss = jax.jit(_loss(ours, theirs, batch, lambda_area=0.5))
  found, (_, metrics, _) = loss(ours['params'], theirs['params'])
  maps = np.maximum(np.asarray(cam), 0)
  maps = (maps / (maps.max((1, 2), keepdims=True) + 1e-5)).mean((1, 2))
  expected = (maps * batch['label']).sum() / np.sum(batch['label'])
  _close(metrics['loss/area'], expected)
  _close(found, total + 0.5 * expected)
  assert expected > 0.05


WEIGHT = np.array([0.2, 1.0, 1.8], np.float32)


def _weighted_loss(logits, target):
  """The mean over images and classes of each class's cross-entropy times its factor."""
  p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
  return (WEIGHT * (-target * np.log(p) - (1 - target) * np.log(1 - p))).mean()


def test_class_weights_count_in_all_terms_of_the_generators_loss(oracle):
  """As in the released loss, the term of the erased images is weighted, too."""
  ours, theirs, batch, ((_, (cam, _, terms)), _) = oracle
  loss = jax.jit(_loss(ours, theirs, batch, class_weight=WEIGHT))
  total, (_, metrics, seen) = loss(ours['params'], theirs['params'])
  label = batch['label']
  _close(metrics['loss/cls'], _weighted_loss(cam.mean((1, 2)), tiny.smooth(label)))
  _close(metrics['loss/cse'], _weighted_loss(seen.judged, tiny.smooth(label - PICKED)))
  for name in ('loss/cls', 'loss/cls_re', 'loss/cse'):
    assert abs(metrics[name] - terms[name]) > 1e-3
  _close(metrics['loss/re'], terms['loss/re'])
  factors = {'loss/cls': 1, 'loss/cls_re': 1, 'loss/re': LAMBDA_RE, 'loss/cse': LAMBDA_CSE}
  _close(total, sum(factor * metrics[name] for name, factor in factors.items()))


def test_class_weights_count_in_the_nocs_loss(oracle):
  _, theirs, batch, ((_, (cam, _, _)), _) = oracle
  loss, _ = _noc_loss(theirs['params'], theirs, batch, cam, class_weight=WEIGHT)
  kept = tiny.masks(cam, PICKED, over_batch=False) <= tiny.DELTA
  seen, _ = tiny.forward(
    theirs['params'], theirs['batch_stats'], batch['image'] * kept, train=False
  )
  expected = _weighted_loss(seen.mean((1, 2)), tiny.smooth(batch['label']))
  _close(loss, LAMBDA_NOC * expected)


def test_the_nocs_loss_and_its_gradient_are_the_papers(oracle):
  _, theirs, batch, ((_, (cam, _, _)), _) = oracle

  def ours(params):
    return _noc_loss(params, theirs, batch, cam)

  def expected(params):
    return tiny.noc_loss(params, theirs['batch_stats'], batch, cam, PICKED, LAMBDA_NOC)

  (loss, (stats, metrics)), grads = jax.jit(jax.value_and_grad(ours, has_aux=True))(
    theirs['params']
  )
  jax.tree.map(_close, (loss, grads), jax.jit(jax.value_and_grad(expected))(theirs['params']))
  assert metrics.keys() == {'loss/noc'}
  _close(metrics['loss/noc'], loss)
  jax.tree.map(np.testing.assert_array_equal, stats, theirs['batch_stats'])


def test_a_noc_of_contrasts_is_told_that_what_is_erased_is_gone(oracle):
  """The image whole, without its own mask, and without another's: the last of the next image's."""
  _, theirs, batch, ((_, (cam, _, _)), _) = oracle
  loss, (_, metrics) = _noc_loss(
    theirs['params'], theirs, batch, cam, noc_views=pnoc.Views.CONTRAST
  )
  image, label = np.asarray(batch['image']), np.asarray(batch['label'])
  kept = np.asarray(tiny.masks(cam, PICKED, over_batch=False) <= tiny.DELTA)
  views = image, image * kept, image * kept[[-1, 0, 1, 2]]
  assert not np.array_equal(views[1], views[2])
  terms = []
  for view, target in zip(views, (label, label - PICKED, label), strict=True):
    seen, _ = tiny.forward(theirs['params'], theirs['batch_stats'], view, train=False)
    terms.append(tiny.cross_entropy(seen.mean((1, 2)), tiny.smooth(target)))
  _close(loss, LAMBDA_NOC * np.mean(terms))
  _close(metrics['loss/noc'], loss)
