"""docs/departures.md says what the comments on departures say, and nothing else.

After a change of such a comment: `python tests/test_departures.py --write` writes the list of that
file from the code. Read the difference.
"""

import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENT = ROOT / 'docs' / 'departures.md'
HEADING = "## From the reference's code"


def _departures(text: str) -> list[tuple[str, str]]:
  """What differs and why, of each `Differs from the reference: WHAT; because WHY.` of a file."""
  lines, found = text.splitlines(), []
  for number, line in enumerate(lines):
    before, marker, rest = line.partition('Differs from the reference:')
    if not marker:
      continue
    comment, words = before.strip() == '#', [rest.strip()]
    for following in lines[number + 1 :]:
      following = following.strip()
      if comment != following.startswith('#') or following in ('', '#') or '"""' in following:
        break
      words.append(following.lstrip('# '))
    sentence = re.split(r'\.(?= [A-Z`]|$)', ' '.join(words), maxsplit=1)[0]
    what, because, why = sentence.partition('; because ')
    assert because, f'a departure without "; because": {sentence}'
    found.append((what, why))
  return found


def _rows() -> list[tuple[str, str, str]]:
  """File, what differs and why, of every departure in the package."""
  package = ROOT / 'pnoc_jax'
  return [
    (str(path.relative_to(package)), *departure)
    for path in sorted(package.rglob('*.py'))
    for departure in _departures(path.read_text(encoding='utf-8'))
  ]


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
  return [f'| `{where}` | {what} | {why} |' for where, what, why in rows]


def _listed() -> list[str]:
  section = DOCUMENT.read_text(encoding='utf-8').split(HEADING)[1].split('\n## ')[0]
  return re.findall(r'^\| `[^`]+\.py`.*$', section, re.MULTILINE)


def test_the_list_of_departures_is_that_of_the_code():
  """Both ways: no comment without a row, no row without a comment, and no other words."""
  assert sorted(_listed()) == sorted(_table(_rows()))
  assert len(_listed()) > 30


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (
      '  # Differs from the reference: a is b; because\n  # c is d. More.\n  x = 1',
      ('a is b', 'c is d'),
    ),
    ('"""Word.\n\nDiffers from the reference: a is\nb; because c.\n"""\n', ('a is b', 'c')),
    (
      '  Differs from the reference: `a.b` is 0.5; because c.\n\n  Args:',
      ('`a.b` is 0.5', 'c'),
    ),
  ],
)
def test_a_departure_ends_with_its_sentence(text, expected):
  assert _departures(text) == [expected]


def test_a_departure_without_a_reason_is_refused():
  with pytest.raises(AssertionError, match='without "; because"'):
    _departures('# Differs from the reference: so it is.')


def _write() -> None:
  text = DOCUMENT.read_text(encoding='utf-8')
  before, after = text.split(HEADING)
  section, *others = after.split('\n## ')
  kept = [line for line in section.splitlines() if not re.match(r'\| `[^`]+\.py`', line)]
  at = kept.index('|---|---|---|') + 1
  kept[at:at] = _table(_rows())
  joined = '\n'.join(kept) + '\n'
  DOCUMENT.write_text(before + HEADING + '\n## '.join([joined, *others]), encoding='utf-8')


if __name__ == '__main__':
  if sys.argv[1:] != ['--write']:
    sys.exit(__doc__)
  _write()
