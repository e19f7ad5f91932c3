"""Files that are damaged, or that somebody meant to be: read, or refused by name."""

import sys

import pytest
from faults import mutated_files

SEED = 14
"""Of the changes; `python tests/faults/mutated_files.py` takes any, and any number of files."""


@pytest.mark.skipif(sys.platform != 'linux', reason='the peak of memory is read from /proc')
def test_changed_files_of_all_kinds_are_read_or_refused_by_name(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  counts, faults = mutated_files.check(tmp_path, 240, SEED)
  assert not faults, '\n'.join(faults)
  outcomes = {outcome for _, outcome in counts}
  assert outcomes == {'read', 'refused'} and counts.total() == 240
