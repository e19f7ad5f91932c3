"""Tells what is kept in the user's cache directory, and empties it.

`python launch/caches.py [--empty]`

Compiled programs and facts about data are kept there, so that the next run starts sooner; each kind
up to 8 GiB, and what was used longest ago goes first. All of it can be made again. Directories that
`--config.runtime.compilation_cache` names, and weights that a person put there, are left alone.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pnoc_jax.io import terminal, user_cache


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the arguments, prints a line for each kind, and empties if asked to."""
  terminal.accept_all_text()
  terminal.say_stopped()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--empty', action='store_true', help='remove all of it; end other runs first')
  arguments = parser.parse_args(argv)
  for kind, what in user_cache.KEPT.items():
    place, kept = user_cache.directory(kind), user_cache.entries(kind)
    size = sum(x.size for x in kept) / 2**30
    print(f'{what}: {len(kept)} in {place}, {size:.2f} of at most {user_cache.LIMIT >> 30} GiB')
    if arguments.empty:
      print(f'  removed {user_cache.empty(kind) / 2**30:.2f} GiB')
  return 0


if __name__ == '__main__':
  sys.exit(main())
