"""The project keeps the house rules, and each rule finds what it forbids."""

import collections
import graphlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import house_rules

ROOT = pathlib.Path(__file__).parents[1]
MODULES = 15


@pytest.fixture(scope='module')
def project() -> dict[str, house_rules.File]:
  """All files of the project but the tests, by their path."""
  found = {}
  for top in ('pnoc_jax', 'configs', 'launch', 'benchmarks', 'tools'):
    for path in sorted((ROOT / top).rglob('*.py')):
      if 'templates' in path.parts:  # Copied into exports, and never imported.
        continue
      relative = path.relative_to(ROOT / 'pnoc_jax' if top == 'pnoc_jax' else ROOT)
      place = '.'.join(relative.with_suffix('').parts).removesuffix('.__init__')
      if place == '__init__':
        continue
      found[str(path.relative_to(ROOT))] = house_rules.File(place, path.read_text(encoding='utf-8'))
  assert len(found) > 50
  return found


@pytest.mark.parametrize('rule', house_rules.RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule, project):
  faults = [f'{path}: {fault}' for path, file in project.items() for fault in rule(file)]
  assert not faults, f'{rule.__doc__}\n' + '\n'.join(faults)


@pytest.mark.parametrize(
  ('rule', 'place', 'text', 'fault'),
  [
    (house_rules.floors, 'ops.x', 'from pnoc_jax.losses import puzzle', 'is above ops'),
    (house_rules.floors, 'ops.x', 'def f():\n  import pnoc_jax.nn.layers', 'is above ops'),
    (house_rules.floors, 'nn.x', 'from pnoc_jax import losses', 'is a sibling of nn'),
    (house_rules.floors, 'io.x', 'from pnoc_jax.data import info', 'is a sibling of io'),
    (house_rules.floors, 'report.x', 'from pnoc_jax.stages import stage', 'is a sibling of report'),
    (house_rules.floors, 'stages.priors', 'from pnoc_jax import config', 'is a sibling of stages'),
    (house_rules.floors, 'stages.x', 'from configs import _base', 'is above stages'),
    (house_rules.floors, 'stages.x', 'from pnoc_jax.runs import graph', 'is a sibling of stages'),
    (
      house_rules.floors,
      'stages.common.x',
      'from pnoc_jax.stages import priors',
      'is above stages.common',
    ),
    (house_rules.floors, 'ops.x', 'from . import cam', 'relative import'),
    (house_rules.floors, 'ops.x', 'from pnoc_jax.attic import cam', 'is on no floor'),
    (house_rules.purity, 'losses.x', 'import os.path', 'losses imports os.path'),
    (
      house_rules.purity,
      'metrics.x',
      'def f():\n  from absl import logging',
      'imports absl.logging',
    ),
    (house_rules.purity, 'updates.x', 'from pnoc_jax.nn import classifier', 'imports pnoc_jax.nn'),
    (house_rules.homes, 'report.x', 'from PIL import Image', 'PIL is not for report.x'),
    (house_rules.homes, 'stages.x', 'import orbax.checkpoint as ocp', 'orbax is not for'),
    (house_rules.homes, 'nn.x', 'def f():\n  import torch', 'torch is not for nn.x'),
    (house_rules.homes, 'benchmarks.step', 'import torch', 'torch is not for'),
    (house_rules.homes, 'io.foreign', 'import torch', 'inside a function'),
    (house_rules.homes, 'data.readers.tfds', 'import tensorflow as tf', 'tensorflow is not for'),
    (
      house_rules.homes,
      'data.readers.tfds',
      'import tensorflow_datasets as tfds',
      'inside a function',
    ),
    (
      house_rules.data_without_jax,
      'data.x',
      'def f():\n  import jax.numpy as jnp',
      'imports jax.numpy',
    ),
    (house_rules.data_without_jax, 'io.images', 'import chex', 'imports chex'),
    (house_rules.compilation, 'stages.x', 'import jax\nf = jax.jit(g)', 'jax.jit outside'),
    (house_rules.compilation, 'stages.x', 'from jax import jit', 'jax.jit outside'),
    (
      house_rules.compilation,
      'nn.x',
      'from flax import linen as nn\nf = nn.jit(g)',
      'flax.linen.jit outside',
    ),
    (house_rules.compilation, 'updates.x', 'import jax\nf = jax.pmap(g)', 'jax.pmap'),
    (
      house_rules.compilation,
      'updates.x',
      "from jax import lax\nx = lax.psum(x, 'i')",
      'jax.lax.psum',
    ),
    (house_rules.compilation, 'nn.x', "norm = BatchNorm(axis_name='data')", 'axis_name='),
    (house_rules.processes, 'stages.x', 'import jax\ni = jax.process_index()', 'jax.process_index'),
    (house_rules.processes, 'io.x', 'import jax\njax.distributed.initialize()', 'jax.distributed'),
    (
      house_rules.processes,
      'data.x',
      'from jax.experimental import multihost_utils',
      'multihost_utils',
    ),
    (
      house_rules.linen,
      'updates.x',
      'from flax import linen as nn\nx = nn.relu(x)',
      'flax.linen.relu',
    ),
    (house_rules.linen, 'stages.x', 'class Net(nn.Module):\n  pass', 'the network Net'),
    (
      house_rules.flags,
      'stages.x',
      "from absl import flags\nflags.DEFINE_string('a', '', '')",
      'DEFINE_string',
    ),
    (
      house_rules.parameters,
      'ops.x',
      'def f():\n  def _g(a, b, c, d, *e, f, g, h, i): ...',
      '_g has 9 parameters',
    ),
    (house_rules.annotated, 'ops.x', 'def f(x, *, y: int) -> int: ...', 'f lacks the types of x'),
    (
      house_rules.annotated,
      'ops.x',
      'def f(*x: int, **y: int): ...',
      'f lacks the types of return',
    ),
    (
      house_rules.annotated,
      'ops.x',
      'class A:\n  def f(self, x) -> int: ...',
      'A.f lacks the types of x',
    ),
    (house_rules.documented, 'ops.x', '"""A file."""\ndef f(): ...', 'f has no docstring'),
    (
      house_rules.documented,
      'ops.x',
      '"""A."""\nclass A:\n  """B."""\n  def f(self): ...',
      'A.f has no',
    ),
    (house_rules.documented, 'ops.x', 'x = 1', 'the file has no docstring'),
    (house_rules.tidy, 'ops.utils', '', 'says nothing'),
    (house_rules.tidy, 'ops.x', 'x = 1  # TODO: more', 'TODO'),
  ],
)
def test_the_rule_finds_a_planted_fault(rule, place, text, fault):
  faults = list(rule(house_rules.File(place, text)))
  assert any(fault in found for found in faults), faults


@pytest.mark.parametrize(
  ('rule', 'place', 'text'),
  [
    (house_rules.floors, 'ops.x', 'from pnoc_jax import trees, types\nimport jax'),
    (house_rules.floors, 'stages.common.x', 'from pnoc_jax.stages.common import stage'),
    (house_rules.floors, 'runs.runner', 'from pnoc_jax.config import validate'),
    (house_rules.floors, 'data.x', 'from pnoc_jax.io import images'),
    (
      house_rules.floors,
      'engine.x',
      'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from pnoc_jax import config',
    ),
    (house_rules.homes, 'io.foreign', 'def f():\n  import torch'),
    (house_rules.homes, 'benchmarks.torch_step', 'import torch'),
    (
      house_rules.data_without_jax,
      'data.x',
      'from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import jax',
    ),
    (house_rules.compilation, 'parallel.compile', 'import jax\nf = jax.jit(g)'),
    (
      house_rules.processes,
      'stages.x',
      'from pnoc_jax.parallel import hosts\ni = hosts.process_index()',
    ),
    (
      house_rules.linen,
      'updates.x',
      'from flax import linen as nn\ndef f(model: nn.Module): ...',
    ),
    (house_rules.parameters, 'ops.x', 'def f(self, a, b, c, d, e, f, *, g, h): ...'),
    (house_rules.parameters, 'tools.x', 'def f(a, b, c, d, e, f, g, h, i): ...'),
    (house_rules.annotated, 'ops.x', 'class A:\n  def f(self, *, x: int) -> int: ...'),
    (house_rules.annotated, 'ops.x', 'def _f(x): ...'),
    (house_rules.documented, 'ops.x', '"""A file."""\ndef _f(): ...'),
  ],
)
def test_the_rule_lets_sound_code_pass(rule, place, text):
  assert not list(rule(house_rules.File(place, text)))


def test_a_folder_can_be_taken_in_at_a_glance(project):
  """Whoever looks for something finds its file among few others."""
  counts = collections.Counter(
    str(pathlib.Path(path).parent)
    for path in project
    if path.startswith('pnoc_jax') and not path.endswith('__init__.py')
  )
  crowded = {folder: count for folder, count in counts.items() if count > MODULES}
  assert not crowded, f'more than {MODULES} modules: {crowded}'


def test_every_room_is_on_a_floor(project):
  assert {file.room for file in project.values()} <= set(house_rules.FLOORS)


def _graph(project: dict[str, house_rules.File]) -> dict[str, set[str]]:
  """Which files a file imports when it is imported itself."""
  places = {file.place for file in project.values()}
  graph = {}
  for file in project.values():
    graph[file.place] = set()
    for found in house_rules.imports(file):
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
    for found in house_rules.imports(by_place[place])
    if found.package in house_rules.JAX and not found.in_function and not found.for_types
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
    for found in house_rules.imports(file)
    if found.package in house_rules.HOMES.keys() | house_rules.JAX | {'tqdm', 'scipy'}
    and not found.in_function
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
