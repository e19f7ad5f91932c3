"""Says what kind of devices a program is traced for, where its best form depends on them."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_KIND = contextvars.ContextVar('_KIND', default='')


def kind() -> str:
  """Returns 'cpu', 'gpu' or 'tpu': what `traced_for` says, or this process's devices."""
  return _KIND.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(kind: str) -> Iterator[None]:
  """Within it, programs are traced for devices of another kind than those of this process.

  A function that was traced before keeps the form that it got then.

  Args:
    kind: 'cpu', 'gpu' or 'tpu'.
  """
  token = _KIND.set(kind)
  try:
    yield
  finally:
    _KIND.reset(token)
