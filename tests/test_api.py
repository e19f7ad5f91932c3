"""The front door for notebooks, and the form of the pure functions' signatures."""

import importlib
import inspect
import json
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import pnoc_jax as pj
from pnoc_jax.nn import backbones
from pnoc_jax.runs import trained

ROOT = pathlib.Path(__file__).parents[1]


def _functions():
  """The public functions of the rooms of pure functions, by their full names."""
  for room in ('ops', 'losses'):
    package = importlib.import_module(f'pnoc_jax.{room}')
    for found in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
      module = importlib.import_module(found.name)
      for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__ and not name.startswith('_'):
          yield pytest.param(function, id=f'{found.name}.{name}')


def _parameters(function) -> dict[str, inspect.Parameter]:
  return dict(inspect.signature(function).parameters)


def _is_array(parameter: inspect.Parameter) -> bool:
  text = str(parameter.annotation)
  return any(word in text for word in ('Any', 'Array', 'PyTree'))


FUNCTIONS = list(_functions())


def test_importing_the_package_imports_no_jax():
  program = """
import json, sys
import pnoc_jax as pj
named = dir(pj)
before = sorted(set(sys.modules) & {'jax', 'numpy', 'flax', 'pnoc_jax.ops'})
pj.ops.puzzle.tile, pj.losses.multilabel, pj.updates.pnoc, pj.predict.cams
pj.load, pj.make_backbone
from jax._src import xla_bridge
print(json.dumps([named, before, list(xla_bridge._backends)]))
"""
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  named, before, backends = json.loads(done.stdout)
  assert named == sorted(['__version__', *pj.__all__])
  assert (before, backends) == ([], [])


def test_the_front_door_leads_to_the_rooms():
  assert set(pj.__all__) == {'load', 'losses', 'make_backbone', 'ops', 'predict', 'updates'}
  assert pj.load is trained.load
  assert pj.make_backbone is backbones.make_backbone
  with pytest.raises(AttributeError, match="'pnoc_jax' has no attribute 'no_such_name'"):
    pj.no_such_name  # noqa: B018


@pytest.mark.parametrize('room', ['ops', 'losses', 'updates', 'predict'])
def test_a_room_has_all_its_files(room):
  package = getattr(pj, room)
  names = {found.name for found in pkgutil.iter_modules(package.__path__)}
  missing = [
    f'from pnoc_jax.{room} import {name} as {name}'
    for name in sorted(names)
    if f'import {name} as {name}\n' not in inspect.getsource(package)
  ]
  assert not missing, f'pnoc_jax/{room}/__init__.py lacks:\n' + '\n'.join(missing)


def test_there_are_functions_to_look_at():
  assert len(FUNCTIONS) > 40


@pytest.mark.parametrize('function', FUNCTIONS)
def test_a_function_has_docstring_and_types(function):
  assert function.__doc__
  signature = inspect.signature(function)
  assert signature.return_annotation is not signature.empty
  for name, parameter in signature.parameters.items():
    assert parameter.annotation is not parameter.empty, f'{name} has no type'


@pytest.mark.parametrize('function', FUNCTIONS)
def test_a_key_comes_first(function):
  """A loss that is differentiated has its parameters first of all."""
  names = list(_parameters(function))
  if 'key' in names and names[0] != 'params':
    assert names[0] == 'key'


@pytest.mark.parametrize('function', FUNCTIONS)
def test_arrays_are_positional_and_options_are_named(function):
  for name, parameter in _parameters(function).items():
    optional = parameter.default is not parameter.empty
    if parameter.kind is parameter.KEYWORD_ONLY:
      assert optional or not _is_array(parameter), f'{name} is an array: it stands before the *'
    elif optional:
      assert _is_array(parameter), f'{name} is an option: it stands behind the *'
