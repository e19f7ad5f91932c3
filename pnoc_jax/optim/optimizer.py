"""Optimisers in which each parameter group, chosen by name, has its own rate and weight decay."""

import dataclasses
import enum
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pnoc_jax import trees, types
from pnoc_jax.optim import schedules


class Rule(enum.Enum):
  """How a gradient becomes a step.

  Attributes:
    SGD: stochastic gradient descent, with momentum or without.
    ADAM: Adam; the weight decay is added to the gradient.
    ADAMW: Adam; the weight decay is added to the step.
    LION: Lion; the weight decay is added to the step.
    LAMB: LAMB; the weight decay is added to the step.
  """

  SGD = 'sgd'
  ADAM = 'adam'
  ADAMW = 'adamw'
  LION = 'lion'
  LAMB = 'lamb'


@dataclasses.dataclass(frozen=True, slots=True)
class Descent:
  """An update rule and its momentum.

  Attributes:
    rule: How a gradient becomes a step.
    momentum: Of SGD; the other rules ignore it.
    nesterov: Whether SGD's momentum is Nesterov's; without momentum it has no effect.
  """

  rule: Rule = Rule.SGD
  momentum: float = 0.0
  nesterov: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
  """The parameters whose names match, and how they learn.

  Attributes:
    pattern: Regular expression that must match the whole name ('backbone/layer1/0/bn1/scale').
    lr: Factor on the schedule.
    weight_decay: Times the parameter, it is added to the gradient (SGD, Adam) or to the step.
    frozen: Whether the parameters never change. Their gradients do not count in the clipped norm.
    optional: Whether the pattern may match no name, which is an error otherwise.
  """

  pattern: str
  lr: float = 1.0
  weight_decay: float = 0.0
  frozen: bool = False
  optional: bool = False


def classifier_groups(
  weight_decay: float,
  *,
  scratch: Sequence[str] = ('classifier',),
  scratch_lr: float = 10.0,
  bias_lr: float = 2.0,
  frozen: Sequence[str] = (),
) -> list[Group]:
  """Returns the four groups of the reference: rates x1, x2 (biases), x10 (scratch) and x20 (both).

  Weights and the scales of BatchNorm decay; biases do not, those of BatchNorm included.

  Args:
    weight_decay: Of the weights.
    scratch: Names of the modules that are not pretrained.
    scratch_lr: Factor of the rate for these modules.
    bias_lr: Factor of the rate for biases.
    frozen: Regular expressions of parameters that do not learn, whatever else matches them.

  Returns:
    The groups, in order of precedence.
  """
  groups = [Group(pattern, lr=0.0, frozen=True) for pattern in frozen]
  if scratch:
    modules = '|'.join(scratch)
    groups += [
      Group(f'(?:{modules})/(?:.*/)?bias', lr=scratch_lr * bias_lr, optional=True),
      Group(f'(?:{modules})/.*', lr=scratch_lr, weight_decay=weight_decay),
    ]
  return [
    *groups,
    Group('(?:.*/)?bias', lr=bias_lr, optional=True),
    Group('.*', lr=1.0, weight_decay=weight_decay, optional=True),
  ]


_SGD = Descent()


def make_optimizer(
  params: types.PyTree,
  *,
  schedule: schedules.Schedule,
  groups: Sequence[Group],
  descent: Descent = _SGD,
  clip_norm: float | None = None,
  accumulate: int = 1,
  grad_mean: bool = True,
) -> optax.GradientTransformation:
  """Returns the optimiser of `params`.

  With SGD and no momentum a step is `p <- p - lr * (g + weight_decay * p)`, as torch's.

  Args:
    params: The parameters (arrays or shapes); only their names are read.
    schedule: The rate at an optimiser step, of which there is one for `accumulate` calls.
    groups: The first one that matches a name applies; every name must be matched.
    descent: The update rule.
    clip_norm: Largest global norm of the accumulated gradient; None does not clip.
    accumulate: Number of gradients that make one step.
    grad_mean: Whether the step sees their mean, or their sum, as in the reference.

  Returns:
    A transformation whose updates are zero except on every `accumulate`-th call.

  Raises:
    UserError: If a name is in no group, or a group that is not optional matches no name.
  """
  labels = trees.label_names(
    params,
    [(group.pattern, group.pattern) for group in groups],
    allow_unused=[group.pattern for group in groups if group.optional],
  )
  # Of equal patterns the first one applies.
  by_pattern = {group.pattern: group for group in reversed(groups)}
  transforms: dict[Hashable, optax.GradientTransformation] = {
    pattern: _group_transform(group, descent, schedule) for pattern, group in by_pattern.items()
  }
  steps = []
  if clip_norm is not None:
    frozen: dict[Hashable, optax.GradientTransformation] = {
      pattern: optax.set_to_zero() if group.frozen else optax.identity()
      for pattern, group in by_pattern.items()
    }
    steps = [optax.multi_transform(frozen, labels), optax.clip_by_global_norm(clip_norm)]
  tx = optax.chain(*steps, optax.multi_transform(transforms, labels))
  if accumulate > 1:
    tx = optax.MultiSteps(tx, accumulate, use_grad_mean=grad_mean).gradient_transformation()
  # Sums over steps are kept of all gradients: without this those that nobody needs, too.
  return _without(tx, jax.tree.map(lambda pattern: by_pattern[pattern].frozen, labels))


def _without(tx: optax.GradientTransformation, gone: types.PyTree) -> optax.GradientTransformation:
  def update(
    updates: types.PyTree, state: optax.OptState, params: types.PyTree | None = None
  ) -> tuple[types.PyTree, optax.OptState]:
    return tx.update(_zero(updates, gone), state, params)

  return optax.GradientTransformation(tx.init, update)


def zero_matching(grads: types.PyTree, patterns: Sequence[str]) -> types.PyTree:
  """Returns gradients that are 0 where a pattern matches: within `jit` they are not computed.

  Args:
    grads: Gradients of params.
    patterns: Regular expressions that match whole names, as of `Group`.
  """
  rules = [*((pattern, True) for pattern in patterns), ('.*', False)]
  gone = trees.label_names(grads, rules, allow_unused=[pattern for pattern, _ in rules])
  return _zero(grads, gone)


def _zero(grads: types.PyTree, gone: types.PyTree) -> types.PyTree:
  return jax.tree.map(lambda x, zero: jnp.zeros_like(x) if zero else x, grads, gone)


def _group_transform(
  group: Group, descent: Descent, schedule: schedules.Schedule
) -> optax.GradientTransformation:
  if group.frozen:
    return optax.set_to_zero()
  decay = optax.add_decayed_weights(group.weight_decay)
  momentum = descent.momentum
  match descent.rule:
    case Rule.SGD:
      # Differs from the reference: SGD's momentum is momentum; because the code that it grew from
      # passes the weight decay in the place of torch's momentum.
      trace = optax.trace(momentum, descent.nesterov) if momentum else optax.identity()
      steps = [decay, trace]
    case Rule.ADAM:
      steps = [decay, optax.scale_by_adam()]
    case Rule.ADAMW:
      steps = [optax.scale_by_adam(), decay]
    case Rule.LION:
      steps = [optax.scale_by_lion(), decay]
    case Rule.LAMB:
      steps = [optax.scale_by_adam(eps=1e-6), decay, optax.scale_by_trust_ratio()]

  def rate(step: Any) -> Any:
    return group.lr * schedule(step)

  return optax.chain(*steps, optax.scale_by_learning_rate(rate))
