"""Terminals and machines that are not UTF-8."""

import ast
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pnoc_jax.io import images, records
from tests.data import folders

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.py'))
FILES = [
  path
  for room in ('pnoc_jax', 'launch', 'configs', 'benchmarks', 'tools')
  for path in sorted((ROOT / room).rglob('*.py'))
]


def test_a_class_in_chinese_on_an_ascii_terminal_is_scored(tmp_path):
  root, pred = folders.write(tmp_path / 'data'), tmp_path / 'pred'
  for file in ('classes.txt', 'image_labels.csv'):
    text = (root / file).read_text(encoding='utf-8').replace('cat', '猫')
    (root / file).write_text(text, encoding='utf-8')
  for path in (root / 'masks').iterdir():
    pred.mkdir(exist_ok=True)
    images.write_png(pred / path.name, np.array(images.read_mask(path)))
  arguments = [f'--pred={pred}', '--dataset=folder', f'--root={root}', '--split=train']
  done = subprocess.run(
    [sys.executable, 'launch/evaluate.py', *arguments, f'--output={tmp_path / "out"}'],
    cwd=ROOT,
    env=os.environ | {'PYTHONIOENCODING': 'ascii', 'PYTHONUTF8': '0'},
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert rb'\u732b' in done.stdout
  assert '猫' in records.read_json(tmp_path / 'out' / 'evaluation.json')['iou']


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_every_command_accepts_any_name_and_ends_with_a_word(path):
  main = next(
    x
    for x in ast.parse(path.read_text(encoding='utf-8')).body
    if isinstance(x, ast.FunctionDef) and x.name == 'main'
  )
  prepared = [ast.unparse(x) for x in main.body[1:3]]
  assert prepared == ['terminal.accept_all_text()', 'terminal.say_stopped()']


def _unnamed(call):
  """Whether a call opens a text file in the machine's own encoding."""
  name = ast.unparse(call.func)
  options = {option.arg: option.value for option in call.keywords}
  if 'encoding' in options or name in ('atomic.write_text', 'tarfile.open'):
    return False
  if name.endswith(('.read_text', '.write_text')):
    return True
  values = [x.value for x in (*call.args, *options.values()) if isinstance(x, ast.Constant)]
  modes = [x for x in values if isinstance(x, str)]
  # `path.open('rb')` has a mode; `Image.open(file)` has none.
  ours = name == 'open' or (name.endswith('.open') and set(''.join(modes)) <= set('rwaxb+'))
  return ours and (name == 'open' or bool(modes)) and not any('b' in mode for mode in modes)


def test_text_files_name_their_encoding():
  wrong = [
    f'{path.relative_to(ROOT)}:{call.lineno}'
    for path in FILES
    for call in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
    if isinstance(call, ast.Call) and _unnamed(call)
  ]
  assert not wrong
