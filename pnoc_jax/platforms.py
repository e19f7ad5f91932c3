"""Says what kind of devices a program is traced for, where its best form depends on them."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_TARGET: contextvars.ContextVar[tuple[str, int]] = contextvars.ContextVar(
  '_TARGET', default=('', 0)
)


def kind() -> str:
  """Returns 'cpu', 'gpu' or 'tpu': what `traced_for` says, or this process's devices."""
  return _TARGET.get()[0] or jax.default_backend()


def count() -> int:
  """Returns the number of devices: what `traced_for` says, or those of all processes."""
  return _TARGET.get()[1] or jax.device_count()


@contextlib.contextmanager
def traced_for(kind: str, count: int = 0) -> Iterator[None]:
  """Within it, programs are traced for devices other than those of this process.

  A function that was traced before keeps the form that it got then.

  Args:
    kind: 'cpu', 'gpu' or 'tpu'.
    count: how many; 0 stands for as many as there are.
  """
  token = _TARGET.set((kind, count))
  try:
    yield
  finally:
    _TARGET.reset(token)
