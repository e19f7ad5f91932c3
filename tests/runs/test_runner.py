"""What a run tells about its data before work starts."""

import os

from data import folders

from pnoc_jax.data import info, sources
from pnoc_jax.report import files
from pnoc_jax.runs import runner


def test_remarks_on_a_split_are_on_the_terminal_and_in_the_report(tmp_path, capsys):
  root = folders.write(tmp_path / 'animals')
  os.rename(root / 'masks', root / 'Masks')
  config = info.DatasetConfig(name='folder', root=str(root))
  runner._remark(tmp_path, {'train': sources.open_source(config, 'train')})
  said = 'Masks/a.png looks like a mask, but is not read as one'
  assert f'warning: split train: {said}' in capsys.readouterr().err
  assert any(f'Split train: {said}' in note for note in files.read_run(tmp_path, ()).notes)
  # Mended, and nothing is said any longer.
  os.rename(root / 'Masks', root / 'masks')
  runner._remark(tmp_path, {'train': sources.open_source(config, 'train')})
  assert capsys.readouterr().err == ''
  assert not any('mask, but' in note for note in files.read_run(tmp_path, ()).notes)
