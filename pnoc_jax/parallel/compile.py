"""Compilation: the only place that calls `jax.jit`."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from pnoc_jax.parallel import sharding


def jit(
  fn: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  *,
  batch_args: Sequence[int] = (),
  outs: Any = sharding.Layout.REPLICATED,
  donate: Sequence[int] = (),
) -> 'Compiled':
  """Compiles a pure function for the mesh.

  Under it a batch is one global array: a maximum or a mean over axis 0 runs over all devices.

  Example:
    `jit(update, mesh, batch_args=(3,), donate=(0,),
         outs=(Layout.REPLICATED, Layout.REPLICATED, Layout.BATCH, Layout.REPLICATED))`

  Args:
    fn: a pure function of positional arguments.
    mesh: the mesh.
    batch_args: positions of the arguments that are split along axis 0; the others are replicated.
    outs: the layout of the result: one for all of it, or a tuple with one for each element.
    donate: positions of the arguments whose memory the result may take: they are gone afterwards.

  Returns:
    The compiled function; it compiles at its first call.
  """
  return Compiled(fn, mesh, tuple(batch_args), outs, tuple(donate))


class Compiled:
  """A compiled function that counts how often it was traced.

  Attributes:
    traces: how many times the Python body ran; 1 as long as shapes and dtypes do not change.
  """

  def __init__(
    self,
    fn: Callable[..., Any],
    mesh: jax.sharding.Mesh,
    batch_args: tuple[int, ...],
    outs: Any,
    donate: tuple[int, ...],
  ):
    self.traces = 0
    self._fn = fn
    self._mesh = mesh
    self._batch_args = batch_args
    self._outs = jax.tree.map(lambda layout: sharding.of(layout, mesh), outs)
    self._donate = donate
    self._jitted = {}

  def __call__(self, *args: Any) -> Any:
    return self._for(args)(*args)

  def lower(self, *args: Any) -> Any:
    """Lowers for arguments or `jax.ShapeDtypeStruct`s, to look at cost or memory."""
    return self._for(args).lower(*args)

  def _for(self, args: tuple[Any, ...]) -> Callable[..., Any]:
    # One `jax.jit` for a number of arguments: their shardings are given argument by argument.
    if len(args) not in self._jitted:
      layouts = tuple(
        sharding.batch(self._mesh) if i in self._batch_args else sharding.replicated(self._mesh)
        for i in range(len(args))
      )
      self._jitted[len(args)] = jax.jit(
        self._counted, in_shardings=layouts, out_shardings=self._outs, donate_argnums=self._donate
      )
    return self._jitted[len(args)]

  def _counted(self, *args: Any) -> Any:
    self.traces += 1
    return self._fn(*args)


def setup_cache(path: str | os.PathLike[str], *, min_seconds: float = 0.3) -> None:
  """Keeps compiled programs on disk, so that a second run starts without compiling.

  Call it before anything is compiled.

  Args:
    path: the cache's directory; it is created.
    min_seconds: programs that compile faster are not kept.
  """
  os.makedirs(path, exist_ok=True)
  jax.config.update('jax_compilation_cache_dir', os.fspath(path))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', min_seconds)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def export(
  fn: Callable[..., Any], *arguments: jax.ShapeDtypeStruct, platforms: Sequence[str]
) -> bytes:
  """Serialises a pure function as StableHLO, for other processes and versions of JAX.

  Args:
    fn: a pure function of arrays; arrays that it closes over become part of the file.
    *arguments: shapes and dtypes; dimensions may be symbolic.
    platforms: what it shall run on, e.g. `('cpu', 'cuda', 'tpu')`.
  """
  return bytes(jax.export.export(jax.jit(fn), platforms=tuple(platforms))(*arguments).serialize())
