"""docs/departures.md lists every comment on a departure, and nothing else."""

import collections
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_the_list_of_departures_is_that_of_the_code():
  commented = collections.Counter()
  for path in sorted((ROOT / 'pnoc_jax').rglob('*.py')):
    count = len(re.findall(r'Differs from the reference:', path.read_text(encoding='utf-8')))
    if count:
      commented[str(path.relative_to(ROOT / 'pnoc_jax'))] = count
  text = (ROOT / 'docs' / 'departures.md').read_text(encoding='utf-8')
  section = text.split("## From the reference's code")[1].split('\n## ')[0]
  listed = collections.Counter(re.findall(r'^\| `([^`]+\.py)`', section, re.MULTILINE))
  assert listed == commented
