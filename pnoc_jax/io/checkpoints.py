"""A training's checkpoints: the whole state of a step, for resuming the same training."""

import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from pnoc_jax import errors, trees


class Restored(NamedTuple):
  """What `Checkpoints.restore_latest` found.

  Attributes:
    step: how many updates the state has seen.
    state: the state.
    extra: what `save` was given to keep with it.
  """

  step: int
  state: Any
  extra: dict[str, Any]


class Checkpoints:
  """The checkpoints of one training, in one directory; all processes call every method together.

  The leaves of a state are stored under their names (`params/conv/kernel`), so a checkpoint does
  not depend on the container types of the libraries that made the state.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 2,
    async_save: bool = True,
    report: Callable[[str], None] = warnings.warn,
  ):
    """Opens the directory, and makes it where it is absent.

    Args:
      directory: where the checkpoints are; shared by all processes.
      keep: how many of the newest to keep. With 2, a damaged newest one costs little.
      async_save: whether files are written while the training goes on.
      report: receives a line about each checkpoint that could not be read.
    """
    # orbax asks for an absolute path.
    self._directory = pathlib.Path(directory).absolute()
    self._report = report
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'extra': ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=async_save, cleanup_tmp_directories=True
      ),
    )

  def save(self, step: int, state: Any, extra: Mapping[str, Any] | None = None) -> None:
    """Writes a checkpoint; a step that is there already is left as it is.

    Args:
      step: how many updates the state has seen.
      state: a tree of arrays, replicated over the mesh. It may be donated as soon as this returns.
      extra: what else to keep with it, as JSON.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(trees.flatten_names(state)),
        extra=ocp.args.JsonSave(dict(extra or {})),
      ),
      force=True,
    )

  def restore_latest(self, abstract_state: Any) -> Restored | None:
    """Reads the newest checkpoint that can be read.

    One that cannot (a disk that filled up, a copy that was cut) is reported and moved to
    `<directory>_unreadable/`, and the one before it is read.

    Args:
      abstract_state: the expected tree, of `jax.ShapeDtypeStruct`s with shardings or of arrays.

    Returns:
      The step, the state with the same structure and shardings, and the extra; None where no
      checkpoint was ever written.

    Raises:
      UserError: names, shapes or dtypes differ from the expected ones, or no checkpoint is
        readable.
    """
    self.wait()
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      try:
        return self._restore(step, abstract_state)
      except errors.UserError:
        raise
      except Exception as error:  # Damage shows as any of a dozen types.
        moved = self._set_aside(step)
        self._report(
          f'the checkpoint of step {step} in {self._directory} cannot be read ({_short(error)}); '
          f'moved it to {moved}.'
        )
    if steps:
      raise errors.UserError(
        f'none of the checkpoints {sorted(steps)} in {self._directory} can be read; they were '
        f'moved to {self._unreadable}. Run the same command again to train from the beginning.'
      )
    return None

  def _restore(self, step: int, abstract_state: Any) -> Restored:
    expected = trees.flatten_names(abstract_state)
    metadata: Any = self._manager.item_metadata(step)
    found = metadata.state.tree
    _check_equal(expected, found, f'the checkpoint of step {step} in {self._directory}')
    abstract = {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, 'sharding', None))
      for name, x in expected.items()
    }
    restored: Any = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore()
      ),
    )
    leaves = [restored['state'][name] for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
    return Restored(step, state, restored['extra'])

  def _set_aside(self, step: int) -> pathlib.Path:
    source = self._directory / str(step)
    target = self._unreadable / str(step)
    # Its place must be free, or the training could not save this step again.
    if ocp.multihost.is_primary_host(0):
      self._unreadable.mkdir(exist_ok=True)
      copies = itertools.count(1)
      while target.exists():
        target = target.with_name(f'{step}-{next(copies)}')
      source.rename(target)
    ocp.multihost.sync_global_processes(f'checkpoint {step} set aside')
    self._manager.reload()
    return target

  @property
  def _unreadable(self) -> pathlib.Path:
    return self._directory.with_name(self._directory.name + '_unreadable')

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, in order."""
    return sorted(self._manager.all_steps())

  def wait(self) -> None:
    """Waits until the checkpoint that is being written is on the disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the last save and lets go of the directory."""
    self.wait()
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def _check_equal(expected: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
  """Raises if names, shapes or dtypes differ; orbax itself would cast dtypes silently."""
  ours = {name: _describe(x) for name, x in expected.items()}
  theirs = {name: _describe(x) for name, x in found.items()}
  if ours == theirs:
    return
  lines = [f'{where} does not fit the state of this training:']
  for name in sorted(ours.keys() | theirs.keys()):
    if ours.get(name) != theirs.get(name):
      lines.append(
        f'  {name}: {theirs.get(name, "absent")} in the checkpoint, '
        f'{ours.get(name, "absent")} expected'
      )
  limit = 20
  if len(lines) > limit:
    lines[limit:] = [f'  ... and {len(lines) - limit} more']
  lines.append('Go on with the configuration that wrote it, or train in another workdir.')
  raise errors.UserError('\n'.join(lines))


def _describe(x: Any) -> str:
  return f'{x.dtype}[{",".join(map(str, x.shape))}]'


def _short(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return f'{type(error).__name__}: {lines[0][:200]}' if lines else type(error).__name__
