"""Prints the oldest versions that pyproject.toml allows, one `name==version` a line, for pip."""

import pathlib
import re
import tomllib

PYPROJECT = pathlib.Path(__file__).parents[1] / 'pyproject.toml'
EXTRAS = ('test', 'hub')


def oldest(text: str) -> list[str]:
  """Pins each dependency, and those of `EXTRAS`, to its lower bound.

  Args:
    text: of pyproject.toml.

  Raises:
    ValueError: a dependency has no lower bound.
  """
  project = tomllib.loads(text)['project']
  wanted = [*project['dependencies']]
  for extra in EXTRAS:
    wanted += project['optional-dependencies'][extra]
  pins = []
  for requirement in wanted:
    found = re.fullmatch(r'([\w.-]+)(\[[\w,]+\])?>=([\w.]+)(,.*)?', requirement.replace(' ', ''))
    if found is None:
      raise ValueError(f'{requirement!r} of {PYPROJECT} has no lower bound')
    pins.append(f'{found[1]}=={found[3]}')
  return pins


if __name__ == '__main__':
  print('\n'.join(oldest(PYPROJECT.read_text(encoding='utf-8'))))
