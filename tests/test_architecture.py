"""The house rules, read off the imports: who stands above whom, and what each room may touch.

A rule is a function from a parsed file to its faults. Below, each runs on the project, and on a
snippet that breaks it.
"""

import ast
import dataclasses
import functools
import graphlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A file imports only from lower floors, and on its own floor only what SAME_FLOOR allows.
FLOORS = {
  **dict.fromkeys(('errors', 'types', 'trees', 'keys'), 0),
  'ops': 1,
  **dict.fromkeys(('nn', 'losses', 'optim', 'metrics'), 2),
  **dict.fromkeys(('states', 'updates', 'predict'), 3),
  **dict.fromkeys(('parallel', 'data', 'io'), 4),
  'training': 5,
  **dict.fromkeys(('stages', 'report', 'config', 'config_flags'), 6),
  **dict.fromkeys(('launch', 'configs', 'benchmarks', 'tools'), 7),
}
# (room or file, room): the first stands on the second.
SAME_FLOOR = {
  ('types', 'errors'),
  ('trees', 'errors'),
  ('trees', 'types'),
  ('keys', 'types'),
  ('updates', 'states'),
  ('predict', 'states'),
  ('data', 'io'),
  ('stages', 'report'),
  ('config', 'stages'),
  # The runner is what the launcher calls; no stage knows the whole config.
  ('stages.runner', 'config'),
}
PURE = {'ops', 'nn', 'losses', 'optim', 'metrics', 'updates', 'predict'}
NO_FILES = {'os', 'pathlib', 'io', 'json', 'logging', 'absl', 'grain', 'orbax', 'ml_collections'}
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'chex', 'orbax'}
# Package -> the only places that import it. A place is a room or a file without `.py`.
HOMES = {
  # Pillow decodes files in io/images; the others are about Pillow's own operations on images.
  'PIL': {'io.images', 'data.randaugment', 'data.colors', 'tools'},
  'orbax': {'io.checkpoints'},
  'grain': {'data'},
  'safetensors': {'io.weights', 'tools'},
  'matplotlib': {'report', 'benchmarks'},
  'tensorboardX': {'training.log'},
  'ml_collections': {'config_flags'},
  'torch': {'tools', 'benchmarks.torch_*', 'io.weights'},
  'torchvision': {'tools'},
  'timm': {'tools', 'benchmarks.torch_*'},
  'tensorflow': set(),
  'tensorflow_datasets': {'data.tfds'},
}
# Where the import stands inside a function: who never asks for it never needs it.
LAZY = {('torch', 'io.weights'), ('tensorflow_datasets', 'data.tfds')}
LONG, TOO_LONG = 300, 400


@dataclasses.dataclass(frozen=True)
class File:
  """A parsed file, and its place: `ops.puzzle`, `keys`, `launch.run`."""

  place: str
  text: str

  @functools.cached_property
  def tree(self) -> ast.Module:
    return ast.parse(self.text)

  @property
  def room(self) -> str:
    return self.place.partition('.')[0]


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported name (`pnoc_jax.ops.puzzle`), and where it stands."""

  name: str
  line: int
  in_function: bool
  for_types: bool

  @property
  def package(self) -> str:
    return self.name.partition('.')[0]

  @property
  def ours(self) -> str | None:
    """The place below `pnoc_jax` (or `configs`, `launch`, ...), or None for other packages."""
    if self.package == 'pnoc_jax':
      return self.name.partition('.')[2] or None
    return self.name if FLOORS.get(self.package) == 7 else None


def imports(file: File) -> Iterator[Import]:
  """Yields all imports of a file, those inside functions included."""

  def visit(node, in_function, for_types):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      stem = '.' * node.level + (node.module or '')
      names = [f'{stem}.{alias.name}' for alias in node.names]
    else:
      inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
      if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
        for child in node.body:
          yield from visit(child, inside, True)
        children = node.orelse
      else:
        children = ast.iter_child_nodes(node)
      for child in children:
        yield from visit(child, inside, for_types)
      return
    for name in names:
      yield Import(name, node.lineno, in_function, for_types)

  yield from visit(file.tree, False, False)


def below(place: str, homes: set[str]) -> bool:
  """Whether a place is one of the homes or lies in one; `x_*` is any name that begins so."""
  return any(
    place == home
    or place.startswith(f'{home}.')
    or (home.endswith('*') and place.startswith(home[:-1]))
    for home in homes
  )


def floors(file: File) -> Iterator[str]:
  """A file imports only lower floors, and siblings only where one stands on the other."""
  for found in imports(file):
    if found.name.startswith('.'):
      yield f'line {found.line}: relative import'
    if found.ours is None:
      continue
    room = found.ours.partition('.')[0]
    if room not in FLOORS:
      yield f'line {found.line}: {found.name} is on no floor'
    elif FLOORS[room] > FLOORS[file.room]:
      yield f'line {found.line}: {found.name} is above {file.room}'
    elif FLOORS[room] == FLOORS[file.room] and not _stands_on(file, room):
      yield f'line {found.line}: {found.name} is a sibling of {file.room}'


def _stands_on(file: File, room: str) -> bool:
  own = file.room == room
  return own or any(below(file.place, {upper}) and room == lower for upper, lower in SAME_FLOOR)


def purity(file: File) -> Iterator[str]:
  """The pure rooms know no file, flag or log; the model comes to the updates as an argument."""
  for found in imports(file):
    if file.room in PURE and found.package in NO_FILES:
      yield f'line {found.line}: {file.room} imports {found.name}'
    if file.room in ('updates', 'predict') and found.name.startswith('pnoc_jax.nn'):
      yield f'line {found.line}: {file.room} imports {found.name}'


def homes(file: File) -> Iterator[str]:
  """Some packages are imported in one place only, some only where they are asked for."""
  for found in imports(file):
    package = found.package
    if package in HOMES and not below(file.place, HOMES[package]):
      yield f'line {found.line}: {package} is not for {file.place}'
    elif (package, file.place) in LAZY and not (found.in_function or found.for_types):
      yield f'line {found.line}: {package} must be imported inside a function'


def data_without_jax(file: File) -> Iterator[str]:
  """Data workers are processes of their own: they never import jax."""
  if file.room == 'data' or file.place in ('io.images', 'io.products', 'errors'):
    for found in imports(file):
      if found.package in JAX and not found.for_types:
        yield f'line {found.line}: {file.place} imports {found.name}'


def _used(file: File) -> Iterator[tuple[int, str]]:
  """Yields (line, dotted name) of every attribute and imported name, aliases resolved."""
  aliases = {}
  for node in ast.walk(file.tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        name = alias.asname or alias.name.partition('.')[0]
        aliases[name] = alias.name if alias.asname else name
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        aliases[alias.asname or alias.name] = f'{node.module}.{alias.name}'
        yield node.lineno, f'{node.module}.{alias.name}'
  for node in ast.walk(file.tree):
    if isinstance(node, ast.Attribute):
      head, _, rest = ast.unparse(node).partition('.')
      yield node.lineno, f'{aliases.get(head, head)}.{rest}'


def compilation(file: File) -> Iterator[str]:
  """`jax.jit` stands in parallel/compile.py alone; nobody maps over a named axis."""
  may_compile = below(file.place, {'parallel.compile', 'benchmarks', 'tools'})
  for line, name in _used(file):
    if re.fullmatch(r'(jax|flax\.linen|jax\.experimental\.pjit)\.p?jit', name) and not may_compile:
      yield f'line {line}: {name} outside of parallel/compile.py'
    if re.fullmatch(r'jax\.(pmap|lax\.(psum|pmean|pmax|pmin|all_gather|axis_index)\w*)', name):
      yield f'line {line}: {name}'
    if re.match(r'jax\.(experimental\.shard_map|shard_map)', name):
      yield f'line {line}: {name}'
  for node in ast.walk(file.tree):
    if isinstance(node, ast.keyword) and node.arg == 'axis_name':
      yield f'line {node.value.lineno}: axis_name='


def processes(file: File) -> Iterator[str]:
  """Only parallel/ and launch/ ask jax about processes; the others ask parallel.hosts."""
  pattern = r'jax\.(distributed|process_index|process_count|experimental\.multihost_utils)\b.*'
  for line, name in _used(file):
    if re.fullmatch(pattern, name) and not below(file.place, {'parallel', 'launch', 'benchmarks'}):
      yield f'line {line}: {name}'


def linen(file: File) -> Iterator[str]:
  """Networks are written in nn/; elsewhere linen lends the name of their type."""
  if file.room in ('nn', 'benchmarks', 'tools'):
    return
  for line, name in _used(file):
    if name.startswith('flax.linen.') and name != 'flax.linen.Module':
      yield f'line {line}: {name} outside of nn/'
  for node in ast.walk(file.tree):
    if isinstance(node, ast.ClassDef) and any('Module' in ast.unparse(b) for b in node.bases):
      yield f'line {node.lineno}: the network {node.name} outside of nn/'


def flags(file: File) -> Iterator[str]:
  """Flags are defined by launchers, and never by the import of the package."""
  for line, name in _used(file):
    is_flag = re.fullmatch(r'absl\.flags\.DEFINE\w*', name) or 'config_flags.DEFINE' in name
    if is_flag and not below(file.place, {'launch', 'config_flags', 'benchmarks', 'tools'}):
      yield f'line {line}: {name}'


def length(file: File) -> Iterator[str]:
  """A file can be read in one sitting."""
  lines = file.text.count('\n')
  if lines > TOO_LONG:
    yield f'{lines} lines, at most {TOO_LONG}'


def documented(file: File) -> Iterator[str]:
  """Every file, public function, class and method says what it is."""
  if file.tree.body and not ast.get_docstring(file.tree):
    yield 'the file has no docstring'

  def visit(body, prefix):
    for node in body:
      if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        continue
      if node.name.startswith('_'):
        continue
      if not ast.get_docstring(node):
        yield f'line {node.lineno}: {prefix}{node.name} has no docstring'
      # The tools' networks are another framework's: their methods are overrides.
      if isinstance(node, ast.ClassDef) and file.room != 'tools':
        yield from visit(node.body, f'{node.name}.')

  yield from visit(file.tree.body, '')


def tidy(file: File) -> Iterator[str]:
  """Nothing is put off, and no file is about nothing in particular."""
  if re.search(r'(^|\.|_)(utils?|misc|helpers?)$', file.place):
    yield f'{file.place} says nothing about what it holds'
  for number, line in enumerate(file.text.splitlines(), 1):
    if re.search(r'#.*\b(TODO|FIXME|XXX)\b', line):
      yield f'line {number}: {line.strip()}'


RULES = (
  floors,
  purity,
  homes,
  data_without_jax,
  compilation,
  processes,
  linen,
  flags,
  length,
  documented,
  tidy,
)


@pytest.fixture(scope='module')
def project() -> dict[str, File]:
  """All files of the project but the tests, by their path."""
  found = {}
  for top in ('pnoc_jax', 'configs', 'launch', 'benchmarks', 'tools'):
    for path in sorted((ROOT / top).rglob('*.py')):
      relative = path.relative_to(ROOT / 'pnoc_jax' if top == 'pnoc_jax' else ROOT)
      place = '.'.join(relative.with_suffix('').parts).removesuffix('.__init__')
      if place == '__init__':
        continue
      found[str(path.relative_to(ROOT))] = File(place, path.read_text(encoding='utf-8'))
  assert len(found) > 50
  return found


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule, project):
  faults = [f'{path}: {fault}' for path, file in project.items() for fault in rule(file)]
  assert not faults, f'{rule.__doc__}\n' + '\n'.join(faults)


@pytest.mark.parametrize(
  ('rule', 'place', 'text', 'fault'),
  [
    (floors, 'ops.x', 'from pnoc_jax.losses import puzzle', 'is above ops'),
    (floors, 'ops.x', 'def f():\n  import pnoc_jax.nn.layers', 'is above ops'),
    (floors, 'nn.x', 'from pnoc_jax import losses', 'is a sibling of nn'),
    (floors, 'io.x', 'from pnoc_jax.data import info', 'is a sibling of io'),
    (floors, 'report.x', 'from pnoc_jax.stages import stage', 'is a sibling of report'),
    (floors, 'stages.priors', 'from pnoc_jax import config', 'is a sibling of stages'),
    (floors, 'stages.x', 'from configs import _base', 'is above stages'),
    (floors, 'ops.x', 'from . import cam', 'relative import'),
    (floors, 'ops.x', 'from pnoc_jax.attic import cam', 'is on no floor'),
    (purity, 'losses.x', 'import os.path', 'losses imports os.path'),
    (purity, 'metrics.x', 'def f():\n  from absl import logging', 'imports absl.logging'),
    (purity, 'updates.x', 'from pnoc_jax.nn import classifier', 'imports pnoc_jax.nn'),
    (homes, 'report.x', 'from PIL import Image', 'PIL is not for report.x'),
    (homes, 'stages.x', 'import orbax.checkpoint as ocp', 'orbax is not for'),
    (homes, 'nn.x', 'def f():\n  import torch', 'torch is not for nn.x'),
    (homes, 'benchmarks.step', 'import torch', 'torch is not for'),
    (homes, 'io.weights', 'import torch', 'inside a function'),
    (homes, 'data.tfds', 'import tensorflow as tf', 'tensorflow is not for'),
    (homes, 'data.tfds', 'import tensorflow_datasets as tfds', 'inside a function'),
    (data_without_jax, 'data.x', 'def f():\n  import jax.numpy as jnp', 'imports jax.numpy'),
    (data_without_jax, 'io.images', 'import chex', 'imports chex'),
    (compilation, 'stages.x', 'import jax\nf = jax.jit(g)', 'jax.jit outside'),
    (compilation, 'stages.x', 'from jax import jit', 'jax.jit outside'),
    (compilation, 'nn.x', 'from flax import linen as nn\nf = nn.jit(g)', 'flax.linen.jit outside'),
    (compilation, 'updates.x', 'import jax\nf = jax.pmap(g)', 'jax.pmap'),
    (compilation, 'updates.x', "from jax import lax\nx = lax.psum(x, 'i')", 'jax.lax.psum'),
    (compilation, 'nn.x', "norm = BatchNorm(axis_name='data')", 'axis_name='),
    (processes, 'stages.x', 'import jax\ni = jax.process_index()', 'jax.process_index'),
    (processes, 'io.x', 'import jax\njax.distributed.initialize()', 'jax.distributed'),
    (processes, 'data.x', 'from jax.experimental import multihost_utils', 'multihost_utils'),
    (linen, 'updates.x', 'from flax import linen as nn\nx = nn.relu(x)', 'flax.linen.relu'),
    (linen, 'stages.x', 'class Net(nn.Module):\n  pass', 'the network Net'),
    (
      flags,
      'stages.x',
      "from absl import flags\nflags.DEFINE_string('a', '', '')",
      'DEFINE_string',
    ),
    (length, 'ops.x', 'x = 1\n' * (TOO_LONG + 1), 'lines, at most'),
    (documented, 'ops.x', '"""A file."""\ndef f(): ...', 'f has no docstring'),
    (documented, 'ops.x', '"""A."""\nclass A:\n  """B."""\n  def f(self): ...', 'A.f has no'),
    (documented, 'ops.x', 'x = 1', 'the file has no docstring'),
    (tidy, 'ops.utils', '', 'says nothing'),
    (tidy, 'ops.x', 'x = 1  # TODO: more', 'TODO'),
  ],
)
def test_the_rule_finds_a_planted_fault(rule, place, text, fault):
  faults = list(rule(File(place, text)))
  assert any(fault in found for found in faults), faults


@pytest.mark.parametrize(
  ('rule', 'place', 'text'),
  [
    (floors, 'ops.x', 'from pnoc_jax import trees, types\nimport jax'),
    (floors, 'stages.runner', 'from pnoc_jax.config import validate'),
    (floors, 'data.x', 'from pnoc_jax.io import images'),
    (homes, 'io.weights', 'def f():\n  import torch'),
    (homes, 'benchmarks.torch_step', 'import torch'),
    (
      data_without_jax,
      'data.x',
      'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import jax',
    ),
    (compilation, 'parallel.compile', 'import jax\nf = jax.jit(g)'),
    (processes, 'stages.x', 'from pnoc_jax.parallel import hosts\ni = hosts.process_index()'),
    (linen, 'updates.x', 'from flax import linen as nn\ndef f(model: nn.Module): ...'),
    (documented, 'ops.x', '"""A file."""\ndef _f(): ...'),
  ],
)
def test_the_rule_lets_sound_code_pass(rule, place, text):
  assert not list(rule(File(place, text)))


def test_few_files_are_long(project):
  long = [path for path, file in project.items() if file.text.count('\n') > LONG]
  assert len(long) <= len(project) // 20, f'above {LONG} lines: {long}'


def test_every_room_is_on_a_floor(project):
  assert {file.room for file in project.values()} <= set(FLOORS)


def _graph(project: dict[str, File]) -> dict[str, set[str]]:
  """Which files a file imports when it is imported itself."""
  places = {file.place for file in project.values()}
  graph = {}
  for file in project.values():
    graph[file.place] = set()
    for found in imports(file):
      if found.ours is None or found.in_function or found.for_types:
        continue
      stem = found.ours if found.ours in places else found.ours.rpartition('.')[0]
      if stem in places:
        graph[file.place].add(stem)
  return graph


def test_no_file_imports_itself_by_a_detour(project):
  try:
    list(graphlib.TopologicalSorter(_graph(project)).static_order())
  except graphlib.CycleError as error:
    pytest.fail(' -> '.join(error.args[1]))


def test_data_workers_load_no_jax_by_a_detour(project):
  graph = _graph(project)
  by_place = {file.place: file for file in project.values()}
  todo = [place for place in graph if place.startswith('data')]
  reached = set()
  while todo:
    place = todo.pop()
    if place not in reached:
      reached.add(place)
      todo += graph[place]
  assert 'io.images' in reached
  faults = [
    f'{place} imports {found.name}'
    for place in sorted(reached)
    for found in imports(by_place[place])
    if found.package in JAX and not found.in_function and not found.for_types
  ]
  assert not faults


# Runs in a process of its own: what the others import comes first, then the hook, then ours.
_IMPORTER = """
import importlib, json, os, pkgutil, signal, sys
for name in json.loads(sys.argv[1]):
  importlib.import_module(name)
opened = []
def hook(event, arguments):
  if event == 'open' and isinstance(arguments[0], str):
    if not arguments[0].endswith(('.py', '.pyc', '.so')):
      opened.append(arguments[0])
  if event in ('os.mkdir', 'os.rename', 'os.remove', 'subprocess.Popen', 'socket.connect'):
    opened.append(f'{event} {arguments}')
before = dict(os.environ), signal.getsignal(signal.SIGTERM)
sys.addaudithook(hook)
import pnoc_jax
names = [x.name for x in pkgutil.walk_packages(pnoc_jax.__path__, 'pnoc_jax.')]
for name in names:
  importlib.import_module(name)
from absl import flags
from jax._src import xla_bridge
print(json.dumps({
  'modules': len(names),
  'opened': opened,
  'backends': list(xla_bridge._backends),
  'flags': [m for m in flags.FLAGS.flags_by_module_dict() if 'pnoc_jax' in m],
  'unchanged': before == (dict(os.environ), signal.getsignal(signal.SIGTERM)),
  'heavy': sorted({'torch', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)),
}))
"""


def test_importing_touches_no_device_flag_or_disk(project, tmp_path):
  others = {
    found.name if not found.name.rpartition('.')[2][:1].isupper() else found.package
    for path, file in project.items()
    if path.startswith('pnoc_jax')
    for found in imports(file)
    if found.package in HOMES.keys() | JAX | {'tqdm', 'scipy'} and not found.in_function
  }
  packages = sorted(
    {name.partition('.')[0] for name in others} | {'jax.experimental.multihost_utils'}
  )
  packages += ['orbax.checkpoint', 'matplotlib.figure', 'matplotlib.image', 'flax.linen']
  result = subprocess.run(
    [sys.executable, '-c', _IMPORTER, json.dumps(packages)],
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONDONTWRITEBYTECODE': '1'},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout.splitlines()[-1])
  assert found.pop('modules') > 50
  assert found == {'opened': [], 'backends': [], 'flags': [], 'unchanged': True, 'heavy': []}
  assert not list(tmp_path.iterdir())
