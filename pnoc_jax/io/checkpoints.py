"""A training's checkpoints: the whole state of a step, for resuming the same training."""

import contextlib
import itertools
import os
import pathlib
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from pnoc_jax import errors, trees
from pnoc_jax.io import atomic, records

_FILES = 'files.json'
"""Within a checkpoint: sizes and checksums of its files, noted when it was whole."""


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
    agree: Callable[[bool], bool] = lambda found: found,
    discard_unreadable: bool = False,
  ):
    """Opens the directory, and makes it where it is absent.

    Args:
      directory: where the checkpoints are; shared by all processes.
      keep: how many of the newest to keep. With 2, a damaged newest one costs little.
      async_save: whether files are written while the training goes on.
      report: receives a line about each checkpoint that could not be read.
      agree: whether a fact was found by any process; all call it together.
      discard_unreadable: set aside checkpoints that cannot be read though nothing proves that they
        are damaged, and begin anew where none is left.

    Raises:
      UserError: a file has the directory's name.
    """
    self._discard, self._agree = discard_unreadable, agree
    self._unnoted: set[int] = set()
    self._noting: threading.Thread | None = None
    # orbax asks for an absolute path.
    self._directory = pathlib.Path(directory).absolute()
    if self._directory.exists() and not self._directory.is_dir():
      raise errors.UserError(f'{self._directory} holds no checkpoints, it is a file: remove it')
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
    # Saving deletes old ones, and nobody must be at work in them.
    self._join()
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(trees.flatten_names(state)),
        extra=ocp.args.JsonSave(dict(extra or {})),
      ),
      force=True,
    )
    # Those before this one are whole now.
    self._note()
    self._unnoted.add(step)

  def restore_latest(self, abstract_state: Any) -> Restored | None:
    """Reads the newest checkpoint that can be read.

    One that is damaged (a disk that filled up, a copy that was cut) is reported and moved to
    `<directory>_unreadable/`, and the one before it is read. What proves the damage are the sizes
    and checksums that were noted when it was whole; the main process compares them, for all. An
    error without such a proof, e.g. of a network disk, stops the run and moves nothing.

    Args:
      abstract_state: the expected tree, of `jax.ShapeDtypeStruct`s with shardings or of arrays.

    Returns:
      The step, the state with the same structure and shardings, and the extra; None where no
      checkpoint was ever written.

    Raises:
      UserError: names, shapes or dtypes differ from the expected ones; a checkpoint cannot be read
        and nothing proves that it is damaged; or none is left beside those that were set aside.
    """
    self.wait()
    for step in sorted(self._manager.all_steps(), reverse=True):
      damage = self._agreed_damage(step)
      if not damage:
        try:
          with _late_reads_are_silent():
            return self._restore(step, abstract_state)
        except errors.UserError:
          raise
        except Exception as error:
          damage = _short(error)
          if not self._discard:
            raise errors.UserError(self._unproven(step, damage)) from error
      moved = self._set_aside(step)
      self._report(
        f'the checkpoint of step {step} in {self._directory} cannot be read ({damage}); '
        f'moved it to {moved}.'
      )
    if self._unreadable.is_dir() and any(self._unreadable.iterdir()) and not self._discard:
      raise errors.UserError(
        f'no checkpoint in {self._directory} can be read; those that were damaged are in '
        f'{self._unreadable}. To train from the beginning give the same command with '
        '--config.runtime.discard_unreadable=True, or move that directory away'
      )
    return None

  def _unproven(self, step: int, error: str) -> str:
    noted = (self._directory / str(step) / _FILES).is_file()
    why = 'its files are as they were written' if noted else 'nothing proves that it is damaged'
    return (
      f'the checkpoint of step {step} in {self._directory} cannot be read now ({error}), and '
      f'{why}: it stays where it is. Give the same command again, perhaps when the disk or the '
      'memory is free; or with --config.runtime.discard_unreadable=True to go on without it'
    )

  def _agreed_damage(self, step: int) -> str:
    """What the main process finds wrong with a checkpoint's files, known to all; or nothing."""
    main = ocp.multihost.is_primary_host(0)
    found = _damage(self._directory / str(step)) if main else ''
    return (found or 'the main process finds it damaged') if self._agree(bool(found)) else ''

  def _restore(self, step: int, abstract_state: Any) -> Restored:
    expected = trees.flatten_names(abstract_state)
    metadata: Any = self._manager.item_metadata(step)
    if metadata is None or metadata.state is None:
      raise FileNotFoundError('what says which arrays it has is missing or unreadable')
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
    if not (self._directory / str(step) / _FILES).is_file():
      self._unnoted.add(step)
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
      atomic.sync_folders([source, target])
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
    self._note()
    self._join()

  def _join(self) -> None:
    if self._noting is not None:
      self._noting.join()

  def _note(self) -> None:
    """Notes sizes and checksums of checkpoints that are known to be whole, beside the training."""
    if not self._unnoted or not ocp.multihost.is_primary_host(0):
      return
    self._join()
    folders = [self._directory / str(step) for step in sorted(self._unnoted)]
    self._unnoted.clear()
    self._noting = threading.Thread(target=_note_all, args=(folders,), daemon=True)
    self._noting.start()

  def close(self) -> None:
    """Waits for the last save and lets go of the directory."""
    self.wait()
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def read_arrays(directory: str | os.PathLike[str], step: int) -> dict[str, np.ndarray]:
  """All arrays of a checkpoint by their names, whatever its state is: for a look at a training.

  Args:
    directory: of the checkpoints.
    step: which of them.
  """
  path = pathlib.Path(directory).absolute() / str(step) / 'state'
  return {name: np.asarray(x) for name, x in ocp.StandardCheckpointer().restore(path).items()}


@contextlib.contextmanager
def _late_reads_are_silent() -> Iterator[None]:
  """Drops what arrays that are still being read have to say after the read of another has failed.

  The loop that waits for all of them is closed by then, and each would print a traceback of its own
  beside the error that is raised. After an error this stays so, since they end at any time.
  """
  usual = sys.unraisablehook

  def hook(unraisable: 'sys.UnraisableHookArgs') -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
      usual(unraisable)

  sys.unraisablehook = hook
  yield
  sys.unraisablehook = usual


def _note_all(folders: Sequence[pathlib.Path]) -> None:
  for folder in folders:
    # It may be deleted meanwhile, as more than are kept; a note is never worth an error. Of one
    # that could not be written there is none, and a note alone would pass for a checkpoint.
    with contextlib.suppress(OSError):
      if folder.is_dir():
        records.write_json(folder / _FILES, _sums(folder))


def _sums(folder: pathlib.Path) -> dict[str, list[int]]:
  """{file below the folder: its size and checksum}."""
  return {
    str(path.relative_to(folder)): [path.stat().st_size, _checksum(path)]
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.name != _FILES and not path.name.startswith(f'.{_FILES}')
  }


def _checksum(path: pathlib.Path, block: int = 1 << 20) -> int:
  found = 0
  with path.open('rb') as file:
    while data := file.read(block):
      found = zlib.crc32(data, found)
  return found


def _damage(folder: pathlib.Path) -> str:
  """How the files of a checkpoint differ from what was noted of them; nothing where they do not.

  Raises:
    UserError: a file cannot be read, which is no proof of a damage.
  """
  note = folder / _FILES
  if not note.is_file():
    return ''  # Written by a run that was killed right after, or before there were notes.
  noted = records.read_json(note)
  if not noted:
    return 'it holds nothing'
  try:
    for name, (size, checksum) in noted.items():
      path = folder / name
      if not path.is_file():
        return f'{name} is missing'
      if path.stat().st_size != size:
        return f'{name} has {path.stat().st_size} bytes in place of {size}'
      if _checksum(path) != checksum:
        return f'{name} has other contents than were written'
  except (AttributeError, TypeError, ValueError) as error:
    raise errors.UserError(
      f'{note} was not written by a run, or it was changed: remove it to go on without it'
    ) from error
  except OSError as error:
    raise errors.UserError(
      f'{folder} cannot be read now ({error.strerror}); give the same command again'
    ) from error
  return ''


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
