"""Packs a data set into ArrayRecord files, which a run reads instead of its many small files.

`python launch/prepare.py --dataset=voc12 --root=DIR --output=DIR [--splits=train_aug,val]`

`--output` may be `gs://bucket/...`, by TFDS's own means (`pip install gcsfs`): a split is then
packed into the directory of temporary files (TMPDIR) and copied.

All images and masks are decoded first: what is broken is told and nothing is packed. A split that
is there is passed over, so that the same command goes on after a stop. Then

`python launch/run.py --config=... --config.dataset.source=tfds --config.dataset.root=OUTPUT`
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal

if TYPE_CHECKING:
  from pnoc_jax.data import info, sources


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the arguments, checks and packs; returns the exit code."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dataset', required=True, help='its kind, e.g. voc12')
  parser.add_argument('--root', default='', help="the data set's directory")
  parser.add_argument('--output', required=True, help='the directory to pack into')
  parser.add_argument('--splits', default='', help='separated by commas; those of the recipes')
  for name, what in (
    ('lists', 'directory of <split>.txt'),
    ('labels', 'table id,labels'),
    ('masks', 'directory of <id>.png'),
  ):
    parser.add_argument(f'--{name}', default='', help=f"{what}, in place of the data set's own")
  arguments = parser.parse_args(argv)
  # Not before the arguments are read: `--help` and wrong arguments answer at once.
  from pnoc_jax.data import info, sources

  try:
    row = sources.row(arguments.dataset)
    config = info.DatasetConfig(
      name=row.name,
      root=arguments.root,
      lists=arguments.lists,
      labels=arguments.labels,
      masks=arguments.masks,
    )
    _prepare(config, row, arguments.splits, arguments.output)
  except (UserError, OSError) as error:
    from pnoc_jax.runs import disk  # It brings JAX.

    print(f'error: {disk.explain(error, Path(arguments.output))}', file=sys.stderr)
    return 2
  return 0


def _prepare(config: 'info.DatasetConfig', row: 'sources.Row', splits: str, output: str) -> None:

  from pnoc_jax.data import sources
  from pnoc_jax.data.inspect import checks
  from pnoc_jax.data.readers import lists

  names = [x.strip() for x in splits.split(',') if x.strip()] or row.splits
  # A split that cannot be opened stops the call before hours of work on the others.
  opened = [sources.open_source(config, name) for name in names]
  for source in opened:
    with _progress('checking', source) as on_progress:
      problems = checks.check_source(source, on_progress=on_progress)
    if problems:
      lines = [f'{x.id}: {x.what}' for x in problems]
      raise UserError(lists.describe(source.info.name, lines) + '\nMend or remove these.')
  with _locked(output):
    _pack(opened, row, output)


@contextlib.contextmanager
def _locked(output: str) -> Iterator[None]:
  """Keeps a second call out of the output, where it is a directory of this machine."""
  from pnoc_jax.runs import lock

  if '://' in output:
    yield
    return
  try:
    Path(output).expanduser().mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--output={output} cannot be made: {error.strerror}') from error
  with lock.hold(Path(output).expanduser(), 'launch/prepare.py'):
    yield


def _pack(opened: 'Sequence[info.Source]', row: 'sources.Row', output: str) -> None:
  from pnoc_jax.data.readers import tfds

  for source in opened:
    with _progress('packing', source) as on_progress:
      packed = tfds.pack(source, row.name, output, upright=row.upright, on_progress=on_progress)
    state = 'packed' if packed else 'there already'
    masks = 'with masks' if source.has_masks else 'without masks'
    print(f'{source.split}: {len(source)} images {masks}, {state}')


@contextlib.contextmanager
def _progress(what: str, source: 'info.Source') -> Iterator[Callable[[int, int], None]]:
  """Shows a bar; yields what is called with (examples done, examples)."""
  import tqdm

  with tqdm.tqdm(total=len(source), desc=f'{what} {source.split}', unit='image') as bar:

    def on_progress(done: int, count: int) -> None:
      del count
      bar.update(done - bar.n)

    yield on_progress


if __name__ == '__main__':
  sys.exit(main())
