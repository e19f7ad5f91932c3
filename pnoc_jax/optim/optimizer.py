"""Optimisers in which each parameter group, chosen by name, has its own rate and weight decay."""

import dataclasses
import enum
from collections.abc import Sequence

import optax

from pnoc_jax import trees, types
from pnoc_jax.optim import schedules


class Rule(enum.Enum):
  """How a gradient becomes a step."""

  SGD = 'sgd'
  ADAM = 'adam'
  ADAMW = 'adamw'
  LION = 'lion'
  LAMB = 'lamb'


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
  """The parameters whose names match, and how they learn.

  Attributes:
    pattern: Regular expression that must match the whole name ('backbone/layer1/0/bn1/scale').
    lr: Factor on the schedule.
    weight_decay: Factor on the parameter that is added to its gradient (SGD, Adam) or to its step.
    frozen: Never changes; its gradient does not count in the clipped norm either.
    optional: May match nothing; otherwise that is an error.
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

  Weights, which include the scales of BatchNorm, decay; biases, which include those of
  BatchNorm, do not.

  Args:
    weight_decay: Of the weights.
    scratch: Names of the modules that are not pretrained.
    scratch_lr: Factor of the rate for these.
    bias_lr: Factor of the rate for biases.
    frozen: Regular expressions of parameters that do not learn; they win over the rest.

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


def make_optimizer(
  params: types.PyTree,
  *,
  schedule: schedules.Schedule,
  groups: Sequence[Group],
  rule: Rule = Rule.SGD,
  momentum: float = 0.0,
  nesterov: bool = False,
  clip_norm: float | None = None,
  accumulate: int = 1,
  grad_mean: bool = True,
) -> optax.GradientTransformation:
  """Returns the optimiser of `params`.

  With SGD and no momentum a step is `p <- p - lr * (g + weight_decay * p)`, as torch's.

  Args:
    params: The parameters (arrays or shapes); only their names are read.
    schedule: From the optimiser step (one every `accumulate` calls) to the rate.
    groups: First match wins; every name must be covered.
    rule: The kind of optimiser. Adam's decay is added to the gradient, AdamW's, Lion's and
      LAMB's to the step.
    momentum: Of SGD; the others ignore it.
    nesterov: Whether SGD's momentum is Nesterov's; without momentum it means nothing.
    clip_norm: Largest global norm of the accumulated gradient; None does not clip.
    accumulate: Gradients that make one step.
    grad_mean: Whether the step sees their mean; False: their sum, as the reference.

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
  # Of equal patterns the first one matches.
  groups = {group.pattern: group for group in reversed(groups)}.values()
  transforms = {
    group.pattern: _group_transform(group, rule, schedule, momentum, nesterov) for group in groups
  }
  steps = []
  if clip_norm is not None:
    frozen = {
      group.pattern: optax.set_to_zero() if group.frozen else optax.identity() for group in groups
    }
    steps = [optax.multi_transform(frozen, labels), optax.clip_by_global_norm(clip_norm)]
  tx = optax.chain(*steps, optax.multi_transform(transforms, labels))
  if accumulate > 1:
    tx = optax.MultiSteps(tx, accumulate, use_grad_mean=grad_mean).gradient_transformation()
  return tx


def _group_transform(
  group: Group, rule: Rule, schedule: schedules.Schedule, momentum: float, nesterov: bool
) -> optax.GradientTransformation:
  if group.frozen:
    return optax.set_to_zero()
  decay = optax.add_decayed_weights(group.weight_decay)
  match rule:
    case Rule.SGD:
      # Differs from the reference: momentum is momentum; because the code that it grew from hands
      # the weight decay to torch's momentum by its position.
      steps = [decay, optax.trace(momentum, nesterov) if momentum else optax.identity()]
    case Rule.ADAM:
      steps = [decay, optax.scale_by_adam()]
    case Rule.ADAMW:
      steps = [optax.scale_by_adam(), decay]
    case Rule.LION:
      steps = [optax.scale_by_lion(), decay]
    case Rule.LAMB:
      steps = [optax.scale_by_adam(eps=1e-6), decay, optax.scale_by_trust_ratio()]
  return optax.chain(*steps, optax.scale_by_learning_rate(lambda step: group.lr * schedule(step)))
