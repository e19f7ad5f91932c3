"""Forward passes of a network, as losses take them."""

from typing import Any

from flax import linen as nn

from pnoc_jax.types import Array, PyTree, Variables


def train(
  model: nn.Module, params: PyTree, batch_stats: PyTree, *inputs: Array | None, **options: Any
) -> tuple[Any, PyTree]:
  """A pass in training mode, which moves the running statistics.

  Args:
    model: the network, called as all networks of `nn` are: `(*inputs, train=)`.
    params: its parameters.
    batch_stats: its running statistics.
    *inputs: what it is called with, e.g. images f32[B, H, W, C], normalised.
    **options: what else `model.apply` takes, e.g. `rngs`.

  Returns:
    What the network gives, and the new running statistics.
  """
  variables = {'params': params, 'batch_stats': batch_stats}
  found, mutated = model.apply(variables, *inputs, train=True, mutable=['batch_stats'], **options)
  return found, mutated.get('batch_stats', batch_stats)


def evaluate(model: nn.Module, variables: Variables, *inputs: Array) -> Any:
  """A pass on running statistics, which changes nothing."""
  return model.apply(variables, *inputs, train=False)
