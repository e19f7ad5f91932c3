"""Makes a data set of own photographs from the layout that they are in.

`python launch/new_dataset.py --from=directories --input=DIR --output=ROOT`

Layouts:
{layouts}

Images are linked (`--copy` copies them) and never changed. Where the layout has no splits, a fifth
of the images validates, so that each class is in both. What is ambiguous is refused by its name.
Writes the `folder` layout and `contact_sheet.png`, and prints the commands that come next.
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.errors import UserError
from pnoc_jax.io import terminal
from pnoc_jax.runs import places

if TYPE_CHECKING:
  from pnoc_jax.data.layouts import writer


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the arguments, writes the data set and a summary; returns the exit code."""
  terminal.accept_all_text()
  terminal.say_stopped()
  from pnoc_jax.data.layouts import found, rows

  layouts = '\n'.join(f'  {name:13} {row.what}' for name, row in rows.TABLE.items())
  parser = argparse.ArgumentParser(
    description=(__doc__ or '').format(layouts=layouts),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--from', required=True, choices=list(rows.TABLE), dest='layout')
  parser.add_argument('--input', required=True, type=Path, help='its directory or file')
  parser.add_argument('--output', required=True, type=places.written, help='the new directory')
  parser.add_argument('--images', type=Path, help='where the images lie; by default in the input')
  parser.add_argument('--val', type=_share, default=0.2, help='share of images that validate')
  parser.add_argument('--seed', type=_seed, default=0, help='of the draw of these')
  parser.add_argument('--copy', action='store_true', help='copy images in place of linking them')
  parser.add_argument('--masks', action='store_true', help='make masks of outlines (coco)')
  parser.add_argument(
    '--negative', action='append', default=[], help='a name that stands for no class; repeatable'
  )
  parser.add_argument('--file_column', default='', help='of a table: the column of files')
  parser.add_argument('--label_columns', default='', help='of a table: one column, or one a class')
  parser.add_argument(
    '--separator', default='', help="of a table: stands between two names; 'none' for nothing"
  )
  arguments = parser.parse_args(argv)
  if arguments.masks and arguments.layout != 'coco':
    parser.error('--masks is for --from=coco: the other layouts have no outlines that are read')
  if arguments.images and arguments.layout in ('directories', 'yolo'):
    parser.error('--images is not for this layout, whose images lie in the input')
  if arguments.layout != 'table' and (
    arguments.file_column or arguments.label_columns or arguments.separator
  ):
    parser.error('--file_column, --label_columns and --separator are for --from=table')
  request = found.Request(
    input=arguments.input,
    images=arguments.images,
    masks=arguments.masks,
    file_column=arguments.file_column,
    label_columns=tuple(x.strip() for x in arguments.label_columns.split(',') if x.strip()),
    separator=arguments.separator,
  )
  from pnoc_jax.data.layouts import writer

  options = writer.Options(share=arguments.val, seed=arguments.seed, copy=arguments.copy)
  try:
    _check_apart(arguments.input, arguments.output)
    layout = found.without(rows.TABLE[arguments.layout].read(request), arguments.negative)
    broken: list[str] = []
    written = writer.write(
      layout,
      arguments.output,
      options,
      _bar,
      lambda root: broken.extend(_sheet(root, arguments.output)),
    )
  except (UserError, OSError) as error:
    from pnoc_jax.runs import disk  # It brings JAX.

    print(f'error: {disk.explain(error, arguments.output)}', file=sys.stderr)
    return 2
  print(_summary(written, broken, arguments.output))
  return 0


def _check_apart(place: Path, output: Path) -> None:
  """Raises a UserError where the data set would be among the photographs of the next call."""
  if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
    raise UserError(
      f'--output={output} lies in the input, where the next call would take it for photographs: '
      'name a directory beside it'
    )


def _share(text: str) -> float:
  with contextlib.suppress(ValueError):
    if 0 < (share := float(text)) < 1:
      return share
  raise argparse.ArgumentTypeError(f'{text} is no number between 0 and 1')


def _seed(text: str) -> int:
  with contextlib.suppress(ValueError):
    if (seed := int(text)) >= 0:
      return seed
  raise argparse.ArgumentTypeError(f'{text} is no whole number from 0 on')


def _bar(items: Iterable) -> Iterable:
  import tqdm

  return tqdm.tqdm(items, unit='image', leave=False)


def _sheet(root: Path, output: Path) -> list[str]:
  """Opens what was written, as a run will, and shows some of it; says what cannot be shown."""
  from pnoc_jax.data.layouts import sheet
  from pnoc_jax.data.readers import folder

  wrong = sheet.write(folder.FolderSource(str(root), 'train'), root / 'contact_sheet.png')
  return [x.replace(str(root), str(output)) for x in wrong]  # By the name that it will have.


def _summary(written: 'writer.Written', broken: Sequence[str], root: Path) -> str:
  parts = list(written.totals)
  width = max(len(x) for x in (*written.classes, '(no class)'))
  lines = [f'{"images":{width}}' + ''.join(f'{x:>8}' for x in parts)]
  for name in (*written.classes, ''):
    numbers = [written.counts[x][name] for x in parts]
    if name or any(numbers):
      lines.append(f'{name or "(no class)":{width}}' + ''.join(f'{n:8}' for n in numbers))
  lines.append(f'{"in all":{width}}' + ''.join(f'{written.totals[x]:8}' for x in parts))
  lines += [f'note: {x}' for x in (*written.remarks, *broken)]
  if broken:
    lines.append('note: the doctor decodes every image, and names all that are broken')
  lines += ['', f'Look at {root / "contact_sheet.png"}, then:']
  # The name may have what a shell would take for its own.
  config = f'--config=configs/pnoc_folder.py --config.dataset.root={shlex.quote(str(root))}'
  lines += [f'  python launch/{x}.py {config}' for x in ('doctor', 'run')]
  return '\n'.join(lines)


if __name__ == '__main__':
  sys.exit(main())
