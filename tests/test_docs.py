"""README, CONTRIBUTING and docs: their Python and commands run as written, their files exist.

A block whose first line is `# needs: WHAT` is not run. Of its commands, and of those that start a
training, the flags are read as the program reads them.
"""

import argparse
import ast
import importlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags as ml_flags

from pnoc_jax import config as config_lib
from pnoc_jax import config_flags
from pnoc_jax.data import info
from pnoc_jax.data.readers import shapes
from pnoc_jax.io import images
from tests.launch import finished_run

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
_TOPS = 'benchmarks|configs|docs|launch|notebooks|pnoc_jax|tests|tools'
_NEEDS = '# needs: '
# These pages say beside their commands which machine, package or time these need.
_SAID = {'performance.md', 'paper.md', 'exports.md'}
# Commands that another test runs, or that the checks of the project are.
_ELSEWHERE = {
  'python launch/run.py --config=configs/pnoc_shapes.py': 'tests/test_pipeline.py: all its stages',
  'python launch/run.py --config=configs/pnoc_shapes.py --fields=generator': 'test_run.py',
  'pytest': '.ci/run',
  'pyright': '.ci/run',
  'ruff check --fix .': '.ci/run',
  'ruff format .': '.ci/run',
  'mkdocs build --strict': '.ci/run',
  'pytest -n 0 tests/ops tests/test_architecture.py': 'pytest runs them',
}
_EXTRAS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']


def _blocks(file: pathlib.Path, language: str = 'python') -> list[tuple[int, str]]:
  """The blocks of a language in a file, each with the number of lines before it."""
  text = file.read_text(encoding='utf-8')
  found = re.finditer(rf'^```{language}\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
  return [(text[: block.start(1)].count('\n'), block[1]) for block in found]


def _commands(file: pathlib.Path) -> list[tuple[list[str], bool]]:
  """The commands of a file as lists of words, each with whether a test can run it."""
  found = []
  for _, block in _blocks(file, 'bash'):
    runs = not block.startswith(_NEEDS) and file.name not in _SAID
    for line in block.replace('\\\n', ' ').splitlines():
      words: list[str] = []
      for word in [*shlex.split(line, comments=True), '&&']:
        if word != '&&':
          words += _expanded(word)
        elif words:
          found.append((words, runs))
          words = []
  return found


def _expanded(word: str) -> list[str]:
  """What a shell makes of `--x.{a,b}.y`, and of any other word that word."""
  match = re.fullmatch(r'(.*?)\{([^{}]*,[^{}]*)\}(.*)', word)
  if not match:
    return [word]
  return [x for part in match[2].split(',') for x in _expanded(match[1] + part + match[3])]


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
  """A directory with a finished run, photographs by class in PHOTOS and a data set in ROOT."""
  directory = tmp_path_factory.mktemp('workplace')
  run = finished_run.write(directory / 'runs' / 'pnoc_shapes')
  (run / 'config.json').write_text(json.dumps({'predictions': {'scales': [1.0], 'flip': False}}))
  source = shapes.ShapesSource(info.ShapesConfig(val=6), 'val')
  own = directory / 'ROOT'
  for index, (name, label) in enumerate(zip(source.ids, source.labels, strict=True)):
    image = source.example(index)['image']
    photograph = directory / 'PHOTOS' / shapes.CLASSES[index % 2] / f'{name}.png'
    for path in (photograph, own / 'images' / f'{name}.png', own / 'masks' / f'{name}.png'):
      path.parent.mkdir(parents=True, exist_ok=True)
      images.write_png(path, source.mask(index) if 'masks' in path.parts else image)
    assert label.any()
  (own / 'splits').mkdir()
  for split in ('train', 'val'):
    (own / 'splits' / f'{split}.txt').write_text('\n'.join(source.ids) + '\n')
  (own / 'classes.txt').write_text('\n'.join(('background', *shapes.CLASSES)) + '\n')
  rows = [
    f'{name},{" ".join(np.array(shapes.CLASSES)[label > 0])}'
    for name, label in zip(source.ids, source.labels, strict=True)
  ]
  (own / 'image_labels.csv').write_text('\n'.join(['id,labels', *rows]) + '\n')
  return directory


@pytest.fixture
def place(workplace, tmp_path, monkeypatch):
  """A copy of that directory, in which the test works."""
  shutil.copytree(workplace, tmp_path / 'work')
  for name in ('configs', 'launch'):
    (tmp_path / 'work' / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path / 'work')
  return tmp_path / 'work'


def test_there_are_blocks_to_run():
  assert {file.name for file in FILES} >= {'CONTRIBUTING.md', 'README.md', 'options.md'}
  assert sum(len(_blocks(file)) for file in FILES) > 11
  assert sum(len(_commands(file)) for file in FILES) > 60


@pytest.mark.parametrize('file', [x for x in FILES if _blocks(x)], ids=lambda file: file.name)
def test_its_python_runs_as_written(file, place, monkeypatch):
  """In the order of the file, and in one namespace: a block may use names of those before it."""
  monkeypatch.setattr(sys, 'argv', [file.name])
  # Dataclasses look for the module that they are in.
  names = types.ModuleType(f'docs_{file.stem}')
  monkeypatch.setitem(sys.modules, names.__name__, names)
  for line, block in _blocks(file):
    if not block.startswith(_NEEDS):
      # Blank lines before it, so that an error has the line of the file.
      exec(compile('\n' * line + block, str(file), 'exec'), vars(names))


class _ReadError(Exception):
  """Ends a program after it has read its flags."""


def _takes_config(script):
  return 'config_flags.define_config' in (ROOT / script).read_text(encoding='utf-8')


def _read_config(monkeypatch, words):
  """Reads the flags of a program that takes a config, and checks the config that they make."""
  values = flags.FlagValues()
  holder = ml_flags.DEFINE_config_file('config', flag_values=values)
  text = (ROOT / words[0]).read_text(encoding='utf-8')
  for kind, name in re.findall(r"flags\.DEFINE_(\w+)\(\s*'(\w+)'", text):
    if kind == 'bool':
      flags.DEFINE_bool(name, False, '', flag_values=values)
    else:
      flags.DEFINE_string(name, None, '', flag_values=values)
  with monkeypatch.context() as patch:
    patch.setattr(config_flags.flags, 'FLAGS', values)
    patch.setattr(sys, 'argv', words)
    config_flags.make_parser('config')(words)
  config_lib.validate(holder.value)


def _read(monkeypatch, words):
  """Reads a command's flags as its program does; fails at one that there is not."""
  match words:
    case ['pip', 'install', *packages]:
      for package in packages:
        for extra in re.findall(r'^(?:\.|pnoc-jax)\[(.*)\]$', package):
          assert set(extra.split(',')) <= {*_EXTRAS}
    case ['sbatch', *rest] if 'launch/slurm.sh' in rest:
      rest = rest[rest.index('launch/slurm.sh') + 1 :]
      _read_config(monkeypatch, ['launch/run.py', *rest])
    case ['launch/tpu_vm.sh', _, _, *rest]:
      _read_config(monkeypatch, ['launch/run.py', *rest])
    case ['python', script, *rest] if (ROOT / script).suffix == '.py' and _takes_config(script):
      _read_config(monkeypatch, [script, *rest])
    case ['python', script, *rest] if script.startswith('launch/'):
      read = argparse.ArgumentParser.parse_args

      def stop(self, arguments=None, namespace=None):
        read(self, arguments, namespace)
        raise _ReadError

      with monkeypatch.context() as patch, pytest.raises(_ReadError):
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        importlib.import_module(f'launch.{pathlib.Path(script).stem}').main(rest)


def _run(words):
  """Runs a command of `launch` in this process."""
  line = ' '.join(words)
  if line in _ELSEWHERE or words[:2] in (['pip', 'install'], ['python', '-m']):
    return
  if words[0] == 'python' and words[1].endswith('.py') and _takes_config(words[1]):
    pytest.fail(f'{line}\nis not run: its block should begin with "{_NEEDS}"')
  assert words[0] == 'python', f'{line}\nis no command that a test can run'
  assert words[1].startswith('launch/'), line
  module = importlib.import_module(f'launch.{pathlib.Path(words[1]).stem}')
  assert module.main(words[2:]) == 0, line


@pytest.mark.parametrize('file', [x for x in FILES if _commands(x)], ids=lambda file: file.name)
def test_its_commands_run_or_say_what_they_need(file, place, monkeypatch, capsys):
  """In the order of the file, in one directory: a command may use what those before it made."""
  del place
  for words, runs in _commands(file):
    _read(monkeypatch, words)
    if runs:
      _run(words)
  capsys.readouterr()


def test_an_unknown_flag_in_a_command_fails(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  for line in (
    'python launch/run.py --config=configs/pnoc_shapes.py --config.generator.lr=1',
    'python launch/predict.py --run=RUN --input=DIR --output=OUT --overlays_',
    'sbatch --nodes=2 launch/slurm.sh --config=configs/nothing.py',
  ):
    with pytest.raises((SystemExit, pytest.fail.Exception)):
      _read(monkeypatch, line.split())
  with pytest.raises(AssertionError):
    _read(monkeypatch, ['pip', 'install', '.[nothing]'])
  with pytest.raises(pytest.fail.Exception):
    _run(['python', 'launch/run.py', '--config=configs/pnoc_voc.py'])


@pytest.mark.parametrize(
  'file', [x for x in FILES if _blocks(x, 'diff')], ids=lambda file: file.name
)
def test_its_differences_fit_the_code(file):
  for _, block in _blocks(file, 'diff'):
    command = ['git', 'apply', '--check', '-']
    subprocess.run(command, input=block, text=True, cwd=ROOT, check=True)


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


@pytest.mark.parametrize('script', sorted((ROOT / 'docs' / 'pictures').glob('*.py')), ids=str)
def test_scripts_that_draw_pictures_name_what_there_is(script):
  tree = ast.parse(script.read_text(encoding='utf-8'))
  modules = {}
  for node in (x for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)):
    for alias in node.names:
      modules[alias.name] = importlib.import_module(f'{node.module}.{alias.name}')
  named = [
    (node.value.id, node.attr)
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id in modules
  ]
  assert len(named) > 5
  assert not [x for x in named if not hasattr(modules[x[0]], x[1])]
