"""README, CONTRIBUTING and docs: their Python runs as written, and the files they name exist."""

import json
import pathlib
import re
import sys

import pytest

from tests.launch import finished_run

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
_TOPS = 'benchmarks|configs|docs|launch|notebooks|pnoc_jax|tests|tools'


def _blocks(file: pathlib.Path) -> list[tuple[int, str]]:
  """The Python blocks of a file, each with the number of lines before it."""
  text = file.read_text(encoding='utf-8')
  found = re.finditer(r'^```python\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
  return [(text[: block.start(1)].count('\n'), block[1]) for block in found]


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
  """A directory in which the run of README's first command has finished."""
  directory = tmp_path_factory.mktemp('workplace')
  run = finished_run.write(directory / 'runs' / 'pnoc_shapes')
  (run / 'config.json').write_text(json.dumps({'predictions': {'scales': [1.0], 'flip': False}}))
  return directory


def test_there_are_blocks_to_run():
  assert {file.name for file in FILES} >= {'CONTRIBUTING.md', 'README.md', 'options.md'}
  assert len(_blocks(ROOT / 'README.md')) >= 2


@pytest.mark.parametrize('file', [x for x in FILES if _blocks(x)], ids=lambda file: file.name)
def test_its_python_runs_as_written(file, workplace, monkeypatch):
  """In the order of the file, and in one namespace: a block may use names of those before it."""
  monkeypatch.chdir(workplace)
  monkeypatch.setattr(sys, 'argv', [file.name])
  names = {'__name__': '__main__'}
  for line, block in _blocks(file):
    # Blank lines before it, so that an error has the line of the file.
    exec(compile('\n' * line + block, str(file), 'exec'), names)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_the_files_it_names_exist(file):
  """As a command or link names them; `{a,b}.py` are two files, `x_*.py` all that begin so."""
  text = file.read_text(encoding='utf-8')
  missing = []
  for path in re.findall(rf'(?<![\w/.-])((?:{_TOPS})/[\w./*{{}},-]*[\w/}}])', text):
    choices = re.search(r'\{(.*?)\}', path)
    for choice in choices[1].split(',') if choices else ['']:
      name = path.replace(choices[0], choice) if choices else path
      if not any(ROOT.glob(name.rstrip('/'))):
        missing.append(name)
  assert not missing
