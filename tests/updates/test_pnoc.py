"""Both updates of P-NOC against its losses and its optimiser, written down once more in `tiny`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import keys, states
from pnoc_jax.losses import pnoc as losses
from pnoc_jax.losses import puzzle
from pnoc_jax.ops import erase, label_split
from pnoc_jax.optim import optimizer, schedules
from pnoc_jax.parallel import arrays
from pnoc_jax.parallel import compile as compiler
from pnoc_jax.parallel.compile import BATCH, REPLICATED
from pnoc_jax.updates import pnoc
from tests.updates import tiny

LAMBDA_RE, LAMBDA_CSE, LAMBDA_NOC = 3.0, 5.0, 0.4
CLOSE = {'rtol': 2e-5, 'atol': 2e-6}


def _tx(params, **options):
  return optimizer.make_optimizer(
    params,
    schedule=schedules.constant(tiny.LR),
    groups=optimizer.classifier_groups(tiny.DECAY),
    **options,
  )


def _generator_update(
  tx, *, lambda_re=LAMBDA_RE, lambda_cse=LAMBDA_CSE, leak_noc_grad=False, **terms
):
  return pnoc.make_generator_update(
    tiny.Net(),
    None if lambda_cse is None else tiny.Net(frozen=True),
    tx,
    lambda_re=None if lambda_re is None else schedules.constant(lambda_re),
    lambda_cse=None if lambda_cse is None else schedules.constant(lambda_cse),
    terms=losses.Terms(smoothing=tiny.ALPHA, **terms),
    leak_noc_grad=leak_noc_grad,
  )


def _equal(found, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or CLOSE)), found, expected
  )


@pytest.fixture(scope='module')
def start():
  """Variables of both networks, the state of step 0 and a batch."""
  ours, judge = tiny.variables(1), tiny.variables(2)
  return ours, judge, states.init_state(ours, _tx(ours['params'])), tiny.batch()


@pytest.fixture(scope='module')
def stepped(start):
  """The generator's update with the leak returned, once."""
  ours, judge, state, batch = start
  update = jax.jit(_generator_update(_tx(ours['params']), leak_noc_grad=True))
  split = label_split.init_label_split(tiny.CLASSES)
  return update(state, judge, split, batch, keys.root_key(5))


@pytest.fixture(scope='module')
def oracle(start, stepped):
  """Loss, terms and gradients of the oracle, for the classes that the update picked."""
  ours, judge, _, batch = start
  picked = np.asarray(stepped.erasure.picked)

  def grads(**options):
    def loss(params, noc_params):
      stats = ours['batch_stats'], judge['batch_stats']
      return tiny.generator_loss(
        params, noc_params, *stats, batch, picked, LAMBDA_RE, LAMBDA_CSE, **options
      )

    graded = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return graded(ours['params'], judge['params'])

  return grads


def test_the_generators_step_is_the_papers(start, stepped, oracle):
  ours, _, _, _ = start
  state, _, erasure, metrics = stepped
  (_, (cam, stats, terms)), (grads, _) = oracle()
  for name, value in terms.items():
    np.testing.assert_allclose(metrics[name], value, err_msg=name, **CLOSE)
  np.testing.assert_allclose(metrics['schedule/lambda_re'], LAMBDA_RE)
  np.testing.assert_allclose(metrics['schedule/lambda_cse'], LAMBDA_CSE)
  _equal(state.params, tiny.descend(ours['params'], grads))
  _equal(state.batch_stats, stats)
  # The maps are those of the network before its step.
  np.testing.assert_allclose(erasure.cam, cam, **CLOSE)
  assert state.step == 1


def test_the_soft_mask_is_over_the_batch_and_has_gradients(start, stepped, oracle):
  """The oracle's two wrong forms are far from the update, so that the test above can tell."""
  ours = start[0]
  found = stepped.generator.params['conv']['kernel']
  for wrong in ({'over_batch': False}, {'detach': True}):
    _, (grads, _) = oracle(**wrong)
    other = tiny.descend(ours['params'], grads)['conv']['kernel']
    assert np.abs(np.asarray(found - other)).max() > 5e-4, wrong


def test_other_masks_and_losses_of_the_generator(start, stepped, oracle):
  """Masks by each image's maximum, squared differences of present classes, sure tiles."""
  ours, judge, state, batch = start
  reconstruct = functools.partial(
    puzzle.reconstruction_loss, distance=puzzle.Distance.L2, selection=puzzle.Selection.SELECTION
  )
  update = _generator_update(
    _tx(ours['params']), reconstruct=reconstruct, lambda_conf=0.3, soft_mask=erase.Over.IMAGE
  )
  split = label_split.init_label_split(tiny.CLASSES)
  found, _, _, metrics = jax.jit(update)(state, judge, split, batch, keys.root_key(5))
  (_, (_, _, terms)), (grads, _) = oracle(over_batch=False, squared=True, lambda_conf=0.3)
  for name, value in terms.items():
    np.testing.assert_allclose(metrics[name], value, err_msg=name, **CLOSE)
  _equal(found.params, tiny.descend(ours['params'], grads))
  assert 'loss/conf' not in stepped.metrics


def test_a_present_class_is_picked_and_counted(start, stepped):
  label = start[3]['label']
  picked = np.asarray(stepped.erasure.picked)
  np.testing.assert_array_equal(picked.sum(1), 1)
  np.testing.assert_array_equal(picked * label, picked)
  np.testing.assert_array_equal(stepped.split.choices, 1 + picked.sum(0))
  assert not np.array_equal(stepped.split.focal, np.ones(tiny.CLASSES))


def test_the_draw_is_the_examples_not_its_places(start, stepped):
  ours, judge, state, batch = start
  order = np.array([2, 0, 3, 1])
  update = jax.jit(_generator_update(_tx(ours['params'])))
  _, _, erasure, _ = update(
    state,
    judge,
    label_split.init_label_split(tiny.CLASSES),
    {name: x[order] for name, x in batch.items()},
    keys.root_key(5),
  )
  np.testing.assert_array_equal(erasure.picked, np.asarray(stepped.erasure.picked)[order])


def test_by_default_no_gradient_for_the_noc_is_kept(start, stepped):
  ours, judge, state, batch = start
  update = jax.jit(_generator_update(_tx(ours['params'])))
  split = label_split.init_label_split(tiny.CLASSES)
  plain, _, erasure, _ = update(state, judge, split, batch, keys.root_key(5))
  assert erasure.leak is None
  # The leak changes nothing for the generator.
  _equal(plain.params, stepped.generator.params)


def test_the_leak_is_the_gradient_of_the_erased_images_loss(stepped, oracle):
  _, (_, leak) = oracle()
  _equal(stepped.erasure.leak, leak)
  assert max(np.abs(x).max() for x in jax.tree.leaves(leak)) > 1e-3


def _noc_step(start, erasure):
  _, judge, _, batch = start
  tx = _tx(judge['params'])
  update = pnoc.make_noc_update(
    tiny.Net(frozen=True),
    tx,
    lambda_noc=schedules.constant(LAMBDA_NOC),
    threshold=tiny.DELTA,
    smoothing=tiny.ALPHA,
  )
  return jax.jit(update)(states.init_state(judge, tx), erasure, batch)


@pytest.fixture(scope='module')
def noc_oracle(start, stepped):
  """Loss and gradient of the noc on maps of the generator before its step."""
  ours, judge, _, batch = start
  cam, _ = tiny.forward(ours['params'], ours['batch_stats'], batch['image'], train=True)
  picked = np.asarray(stepped.erasure.picked)

  def loss(noc_params):
    return tiny.noc_loss(noc_params, judge['batch_stats'], batch, cam, picked, LAMBDA_NOC)

  return jax.jit(jax.value_and_grad(loss))(judge['params'])


def test_the_nocs_step_is_the_papers(start, stepped, noc_oracle):
  judge = start[1]
  loss, grads = noc_oracle
  noc, metrics = _noc_step(start, stepped.erasure.replace(leak=None))
  np.testing.assert_allclose(metrics['loss/noc'], loss, **CLOSE)
  np.testing.assert_allclose(metrics['schedule/lambda_noc'], LAMBDA_NOC)
  _equal(noc.params, tiny.descend(judge['params'], grads))
  # Its BatchNorm is frozen.
  _equal(noc.batch_stats, judge['batch_stats'], rtol=0)
  assert noc.step == 1


def test_the_leak_is_added_to_the_nocs_gradient(start, stepped, noc_oracle):
  judge, leak = start[1], stepped.erasure.leak
  noc, metrics = _noc_step(start, stepped.erasure)
  both = jax.tree.map(jnp.add, noc_oracle[1], leak)
  _equal(noc.params, tiny.descend(judge['params'], both))
  np.testing.assert_allclose(metrics['loss/noc'], noc_oracle[0], **CLOSE)


def test_the_nocs_mask_is_of_the_maps_before_the_generators_step(start, stepped, noc_oracle):
  """Maps after the step give another loss, so that the tests above can tell."""
  _, judge, _, batch = start
  after, _ = tiny.forward(
    stepped.generator.params, start[0]['batch_stats'], batch['image'], train=True
  )
  picked = np.asarray(stepped.erasure.picked)
  loss = tiny.noc_loss(judge['params'], judge['batch_stats'], batch, after, picked, LAMBDA_NOC)
  assert abs(float(loss - noc_oracle[0])) > 1e-4


def test_nothing_of_the_nocs_loss_reaches_the_generator(start, stepped):
  erasure = stepped.erasure.replace(leak=None)

  def reached(cam):
    noc, metrics = _noc_step(start, erasure.replace(cam=cam))
    return metrics['loss/noc'] + sum(jnp.sum(x) for x in jax.tree.leaves(noc.params))

  np.testing.assert_array_equal(jax.grad(reached)(erasure.cam), 0)
  # Nor does the generator's update hand out maps that gradients flow through.
  ours, judge, state, batch = start
  update = _generator_update(_tx(ours['params']))
  split = label_split.init_label_split(tiny.CLASSES)

  def handed(params):
    out = update(state.replace(params=params), judge, split, batch, keys.root_key(5))
    return jnp.sum(out.erasure.cam)

  for grad in jax.tree.leaves(jax.jit(jax.grad(handed))(ours['params'])):
    np.testing.assert_array_equal(grad, 0)


def test_without_weight_on_erasure_it_is_puzzle(start):
  ours, judge, state, batch = start
  tx, key = _tx(ours['params']), keys.root_key(5)
  split = label_split.init_label_split(tiny.CLASSES)
  poc, *_ = jax.jit(_generator_update(tx, lambda_cse=0.0))(state, judge, split, batch, key)
  puzzle, rest, erasure, metrics = jax.jit(_generator_update(tx, lambda_cse=None))(
    state, None, None, batch, key
  )
  _equal(poc.params, puzzle.params)
  _equal(poc.batch_stats, puzzle.batch_stats)
  assert rest is None
  assert erasure is None
  assert 'loss/cse' not in metrics


def test_without_tiles_and_erasure_it_is_the_classifier(start):
  ours, _, state, batch = start
  update = jax.jit(_generator_update(_tx(ours['params']), lambda_re=None, lambda_cse=None))
  vanilla, split, erasure, metrics = update(state, None, None, batch, keys.root_key(5))

  def loss_fn(params):
    cam, stats = tiny.forward(params, ours['batch_stats'], batch['image'], train=True)
    return tiny.cross_entropy(cam.mean((1, 2)), tiny.smooth(batch['label'])), stats

  (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(ours['params'])
  assert metrics.keys() == {'loss/cls', 'loss/total'}
  for value in metrics.values():
    np.testing.assert_allclose(value, loss, **CLOSE)
  _equal(vanilla.params, tiny.descend(ours['params'], grads))
  _equal(vanilla.batch_stats, stats)
  assert vanilla.step == 1
  assert split is None and erasure is None


def test_two_micro_steps_by_sum_are_one_step(start):
  """As the reference, gradients add up: no mean, and BatchNorm moves at every micro-step."""
  ours, _, _, _ = start
  tx = _tx(ours['params'], accumulate=2, grad_mean=False)
  update = jax.jit(_generator_update(tx, lambda_re=None, lambda_cse=None))
  state, stats, total = states.init_state(ours, tx), ours['batch_stats'], None
  for number in (1, 2):
    batch = tiny.batch(number)

    def loss_fn(params, stats=stats, data=batch):
      cam, stats = tiny.forward(params, stats, data['image'], train=True)
      return tiny.cross_entropy(cam.mean((1, 2)), tiny.smooth(data['label'])), stats

    (_, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(ours['params'])
    total = grads if total is None else jax.tree.map(jnp.add, total, grads)
    state = update(state, None, None, batch, keys.root_key(5)).generator
    assert state.step == number
    if number == 1:
      _equal(state.params, ours['params'], rtol=0)
  _equal(state.params, tiny.descend(ours['params'], total))
  _equal(state.batch_stats, stats)


def test_weights_follow_the_micro_step_and_the_step_traces_once(start, one_device):
  ours, judge, _, _ = start
  ramp = schedules.ramp(0.0, 4.0, 8, 0.5)
  tx = _tx(ours['params'])
  update = pnoc.make_generator_update(
    tiny.Net(),
    tiny.Net(frozen=True),
    tx,
    lambda_re=ramp,
    lambda_cse=schedules.ramp(0.3, 1.0, 8),
  )
  compiled = compiler.jit(
    update,
    one_device,
    ins=(REPLICATED, REPLICATED, REPLICATED, BATCH, REPLICATED),
    donate=(0, 2),
  )
  split = label_split.init_label_split(tiny.CLASSES)
  state, judge, split = arrays.replicate(
    jax.device_get((states.init_state(ours, tx), judge, split)), one_device
  )
  seen = []
  for step in range(5):
    key = arrays.replicate(keys.stream(keys.root_key(0), 'split', step), one_device)
    batch = arrays.to_global(tiny.batch(step), one_device)
    state, split, _, metrics = compiled(state, judge, split, batch, key)
    seen.append([float(metrics[f'schedule/lambda_{name}']) for name in ('re', 'cse')])
  np.testing.assert_allclose(np.array(seen)[:, 0], [0, 1, 2, 3, 4])
  np.testing.assert_allclose(np.array(seen)[:, 1], 0.3 + 0.7 * np.arange(5) / 8, rtol=1e-6)
  assert compiled.traces == 1
  assert state.step == 5
  assert split.choices.sum() == tiny.CLASSES + 5 * tiny.BATCH


def test_erasure_needs_both_a_classifier_and_a_weight(start):
  tx = _tx(start[0]['params'])
  with pytest.raises(ValueError, match='go together'):
    pnoc.make_generator_update(
      tiny.Net(), None, tx, lambda_re=None, lambda_cse=schedules.constant(1.0)
    )


def test_a_noc_that_trains_is_a_judge():
  assert all(method.judge for method in pnoc.METHODS.values() if method.noc)
