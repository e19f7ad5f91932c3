"""Rebuilds the report of a run from its files.

python launch/report.py --workdir=runs/pnoc_shapes
"""

import sys

from absl import app, flags

from pnoc_jax.errors import UserError
from pnoc_jax.report import build

WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
IMAGES = flags.DEFINE_integer('images', 12, 'Images shown with their maps, of each split.')


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  try:
    path = build.build(WORKDIR.value, images=IMAGES.value)
    tables = build.terminal_tables(WORKDIR.value)
  except UserError as error:
    sys.exit(f'error: {error}')
  print('\n\n'.join(filter(None, (tables, str(path)))))


if __name__ == '__main__':
  app.run(main)
