"""The house rules, read off the imports: who stands above whom, and what each room may touch.

A rule is a function from a parsed file to its faults; tests/test_architecture.py runs each on the
project, and on a snippet that breaks it.
"""

import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]

# A file imports only from lower floors, and on its own floor only what SAME_FLOOR allows.
FLOORS = {
  **dict.fromkeys(('errors', 'types', 'trees', 'keys', 'platforms'), 0),
  'ops': 1,
  **dict.fromkeys(('nn', 'losses', 'optim', 'metrics'), 2),
  **dict.fromkeys(('states', 'updates', 'predict'), 3),
  **dict.fromkeys(('parallel', 'data', 'io'), 4),
  'engine': 5,
  **dict.fromkeys(('stages', 'report', 'config', 'config_flags', 'runs', 'paper'), 6),
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
  # What the launcher calls; no stage knows the whole config.
  ('runs', 'stages'),
  ('runs', 'report'),
  ('runs', 'config'),
  # Several runs of one config, and what is written about them.
  ('paper', 'runs'),
  ('paper', 'stages'),
  ('paper', 'report'),
  ('paper', 'config'),
  ('paper', 'config_flags'),
}
# A room within a room, and all that it may know of the outer one.
INNER = {'stages.common': {'stages.common'}}
PURE = {'ops', 'nn', 'losses', 'optim', 'metrics', 'updates', 'predict'}
NO_FILES = {'os', 'pathlib', 'io', 'json', 'logging', 'absl', 'grain', 'orbax', 'ml_collections'}
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'chex', 'orbax'}
# Package -> the only places that import it. A place is a room or a file without `.py`.
HOMES = {
  # Pillow decodes files in io/images; the others are about Pillow's own operations on images.
  'PIL': {
    'io.images',
    'data.augment.randaugment',
    'data.augment.colors',
    'tools',
    'benchmarks.torch_*',
  },
  'orbax': {'io.checkpoints'},
  'grain': {'data'},
  'safetensors': {'io.weights', 'tools'},
  'matplotlib': {'report', 'paper', 'benchmarks', 'data.layouts.sheet'},
  'tensorboardX': {'engine.log'},
  'ml_collections': {'config_flags'},
  'torch': {'tools', 'benchmarks.torch_*', 'io.foreign'},
  'jax2onnx': {'runs.exports.export'},
  'torchvision': {'tools', 'benchmarks.torch_*'},
  'timm': {'tools', 'benchmarks.torch_*'},
  'yaml': {'data.layouts.yolo'},
  'pycocotools': {'data.readers.regions'},
  'tensorflow': set(),
  'tensorflow_datasets': {'data.readers.tfds'},
}
# Where the import stands inside a function: who never asks for it never needs it.
LAZY = {
  ('torch', 'io.foreign'),
  ('tensorflow_datasets', 'data.readers.tfds'),
  ('jax2onnx', 'runs.exports.export'),
  # It loads PyTorch, where there is one.
  ('tensorboardX', 'engine.log'),
}
# A function with more parameters groups those that travel together in a dataclass.
PARAMETERS = 8


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
  """A file imports only lower floors, and siblings only where one stands on the other.

  What is imported for its type alone may stand on any floor: nothing of it runs.
  """
  for found in imports(file):
    if found.name.startswith('.'):
      yield f'line {found.line}: relative import'
    if found.ours is None:
      continue
    room = found.ours.partition('.')[0]
    if room not in FLOORS:
      yield f'line {found.line}: {found.name} is on no floor'
    elif found.for_types:
      continue
    elif FLOORS[room] > FLOORS[file.room]:
      yield f'line {found.line}: {found.name} is above {file.room}'
    elif FLOORS[room] == FLOORS[file.room] and not _stands_on(file, room):
      yield f'line {found.line}: {found.name} is a sibling of {file.room}'
    inner = file.place.rpartition('.')[0]
    if inner in INNER and room == file.room and not below(found.ours, INNER[inner]):
      yield f'line {found.line}: {found.name} is above {inner}'


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


def _ours(file: File) -> bool:
  """Whether a file is of the package, and not of those who call it."""
  return FLOORS[file.room] < 7


def parameters(file: File) -> Iterator[str]:
  """A function of the package has few parameters."""
  for node in ast.walk(file.tree) if _ours(file) else ():
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      count = len(list(_parameters(node)))
      if count > PARAMETERS:
        yield f'line {node.lineno}: {node.name} has {count} parameters, at most {PARAMETERS}'


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.arg]:
  """Yields what the caller of a function gives."""
  found = node.args
  for part in (*found.posonlyargs, *found.args, found.vararg, *found.kwonlyargs, found.kwarg):
    if part is not None and part.arg not in ('self', 'cls'):
      yield part


def _public(file: File) -> Iterator[tuple[str, ast.AST]]:
  """Yields the public functions, classes and methods of a file, with their names."""

  def visit(body, prefix):
    for node in body:
      if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        continue
      if node.name.startswith('_'):
        continue
      yield f'{prefix}{node.name}', node
      # The tools' networks are another framework's: their methods are overrides.
      if isinstance(node, ast.ClassDef) and file.room != 'tools':
        yield from visit(node.body, f'{node.name}.')

  yield from visit(file.tree.body, '')


def annotated(file: File) -> Iterator[str]:
  """Every public function and method of the package says the types of all that goes in and out."""
  for name, node in _public(file) if _ours(file) else ():
    if isinstance(node, ast.ClassDef):
      continue
    missing = [part.arg for part in _parameters(node) if part.annotation is None]
    if node.returns is None:
      missing.append('return')
    if missing:
      yield f'line {node.lineno}: {name} lacks the types of {", ".join(missing)}'


def documented(file: File) -> Iterator[str]:
  """Every file, public function, class and method says what it is."""
  if file.tree.body and not ast.get_docstring(file.tree):
    yield 'the file has no docstring'
  for name, node in _public(file):
    if not ast.get_docstring(node):
      yield f'line {node.lineno}: {name} has no docstring'


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
  parameters,
  annotated,
  documented,
  tidy,
)
