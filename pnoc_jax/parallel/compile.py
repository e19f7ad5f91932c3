"""Compilation: the only place that calls `jax.jit`."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from pnoc_jax.parallel import sharding

# They stand in trees for what they lay out, whatever its type.
REPLICATED: Any = sharding.Layout.REPLICATED
BATCH: Any = sharding.Layout.BATCH

# Of XLA's compiler for CPUs: a little of LLVM's optimisation takes half of the time of all of it,
# and its newer code generator for fused operations takes longer than the older one.
_QUICK: dict[str, Any] = {'xla_backend_optimization_level': 1}
if jax.__version_info__ < (0, 12):  # Later versions have no other generator.
  _QUICK['xla_cpu_use_fusion_emitters'] = False
_options: dict[str, Any] = {}


def jit(
  fn: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  *,
  ins: Any = REPLICATED,
  outs: Any = REPLICATED,
  donate: Sequence[int] = (),
) -> 'Compiled':
  """Compiles a pure function for the mesh.

  Under it a batch is one global array: a maximum or a mean over axis 0 runs over all devices.

  Example:
    `jit(update, mesh, ins=(REPLICATED, BATCH), donate=(0,))`

  Args:
    fn: a pure function of positional arguments.
    mesh: the mesh.
    ins: the layouts of the arguments: one for all of them, or a tuple with an entry an argument,
      each a layout or a tree of layouts that begins like the argument.
    outs: the layouts of the result, likewise.
    donate: positions of the arguments whose memory the result may take: they are gone afterwards.

  Returns:
    The compiled function; it compiles at its first call.
  """
  return Compiled(fn, mesh, ins=ins, outs=outs, donate=tuple(donate))


class Compiled:
  """A compiled function that counts how often it was traced.

  Attributes:
    mesh: the devices.
    traces: how many times the Python body ran; 1 as long as shapes and dtypes do not change.
    lower: as of `jax.jit`: lowers for arguments or `jax.ShapeDtypeStruct`s, to look at cost or
      memory.
    trace: as of `jax.jit`, likewise: its `jaxpr` is the program before any compiler has seen it.
  """

  def __init__(
    self,
    fn: Callable[..., Any],
    mesh: jax.sharding.Mesh,
    *,
    ins: Any,
    outs: Any,
    donate: tuple[int, ...],
  ):
    """Binds the function; see `jit`."""
    self.mesh, self.traces = mesh, 0

    def counted(*args: Any) -> Any:
      self.traces += 1
      return fn(*args)

    ins, outs = jax.tree.map(lambda layout: sharding.of(layout, mesh), (ins, outs))
    on_cpu = mesh.devices.flat[0].platform == 'cpu'
    self._jitted = jax.jit(
      counted,
      in_shardings=ins,
      out_shardings=outs,
      donate_argnums=donate,
      compiler_options=dict(_options) if on_cpu else None,
    )
    self.lower, self.trace = self._jitted.lower, self._jitted.trace

  def __call__(self, *args: Any) -> Any:
    return self._jitted(*args)


class Call(NamedTuple):
  """A program of a run, with the shapes that it is called with: it can be looked at, not run.

  `call.compiled.lower(*call.arguments)` computes and allocates nothing.

  Attributes:
    name: what it does, within its stage.
    compiled: the program.
    arguments: trees of `jax.ShapeDtypeStruct`.
    images: that one call works on, over all devices of the program's mesh.
    calls: how often the run calls it.
    together: how many calls run at a time, each on devices of its own.
    padded: whether the images of a call are filled up to a multiple of the devices.
  """

  name: str
  compiled: Compiled
  arguments: tuple[Any, ...]
  images: int
  calls: float
  together: int = 1
  padded: bool = False


def shapes(tree: Any) -> Any:
  """Shapes and dtypes of a tree of arrays."""
  return jax.eval_shape(lambda x: x, tree)


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


def compile_quickly(wanted: bool) -> None:
  """Whether programs that are made from now on compile quickly on CPUs, rather than run quickly.

  For runs of a few steps: compiling takes half of the time, and a step about a fifth more, on the
  small networks of `shapes`. Results differ by rounding.
  """
  _options.clear()
  if wanted:
    _options.update(_QUICK)


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
