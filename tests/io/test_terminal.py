"""What is written to a terminal cannot command it."""

import os
import pathlib
import subprocess
import sys

import pytest

from pnoc_jax.io import terminal

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  'text, shown',
  [
    ('a\x1b[2Jb', r'a\x1b[2Jb'),
    ('a\x9b2Jb', r'a\x9b2Jb'),
    ('\x1b]0;title\x07', r'\x1b]0;title\x07'),
    ('ok\rerror', r'ok\rerror'),
    ('a\u202eb\u2028c', r'a\u202eb\u2028c'),
    ('a\ud800b', r'a\ud800b'),
    ('\r 50%|##  |', '\r 50%|##  |'),
    ('a\tb\nÅ 猫 👩\u200d🔬', 'a\tb\nÅ 猫 👩\u200d🔬'),
  ],
)
def test_controls_are_made_visible_and_nothing_else(text, shown):
  assert terminal.visible(text) == shown


def test_prints_warnings_and_progress_bars_of_a_launcher_go_through_it(tmp_path):
  code = """
import sys, tqdm, warnings
from pnoc_jax.io import terminal
terminal.accept_all_text()
terminal.accept_all_text()  # Twice is as good as once.
print('\\x1b[31mred', flush=True)
warnings.warn('\\x1b]0;x')
for _ in tqdm.tqdm(range(2), desc='\\x1b[2J', file=sys.stderr): pass
sys.exit('error: \\x1b[1m')
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': str(pathlib.Path(__file__).parents[2])},
    capture_output=True,
    check=False,
  )
  assert done.returncode == 1 and done.stdout == b'\\x1b[31mred\n'
  assert b'\x1b' not in done.stderr
  for said in (rb'\x1b]0;x', rb'\x1b[2J', rb'error: \x1b[1m'):
    assert said in done.stderr, done.stderr


@pytest.mark.parametrize(
  ('error', 'code', 'last', 'lines'),
  [('KeyboardInterrupt', -2, 'stopped', 1), ('ValueError', 1, 'ValueError', 4)],
)
def test_an_interrupted_command_says_so_without_a_traceback(error, code, last, lines):
  program = f'from pnoc_jax.io import terminal\nterminal.say_stopped()\nraise {error}'
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False
  )
  said = done.stderr.splitlines()
  assert (done.returncode, said[-1]) == (code, last) and len(said) <= lines
