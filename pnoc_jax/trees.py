"""Works on trees of arrays by the names of their leaves (`backbone/conv1/kernel`)."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pnoc_jax import errors, types

_SHOWN = 20


def flatten_names(tree: types.PyTree) -> dict[str, Any]:
  """Returns the leaves of a tree by name, in the tree's own order.

  Args:
    tree: Nested dicts, sequences or dataclasses.

  Returns:
    `{'a/b/c': leaf}`.

  Raises:
    UserError: If two leaves have the same name.
  """
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  named = {}
  for path, leaf in paths:
    name = _name(path)
    if name in named:
      raise errors.UserError(f'two leaves are named {name!r}: rename one of them')
    named[name] = leaf
  return named


def _name(path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def unflatten_names(named: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested dicts from `{'a/b/c': leaf}`: the inverse of `flatten_names` on dicts.

  Raises:
    UserError: If a name is both a leaf and the parent of another leaf.
  """
  tree: dict[str, Any] = {}
  for name, leaf in named.items():
    *parents, last = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
      if not isinstance(node, dict):
        raise errors.UserError(f'{name!r} lies under {parent!r}, which is itself a leaf')
    if last in node:
      raise errors.UserError(f'{name!r} is both a leaf and the parent of other leaves')
    node[last] = leaf
  return tree


def label_names(
  tree: types.PyTree,
  rules: Sequence[tuple[str, Any]],
  *,
  allow_unused: Collection[str] = (),
) -> types.PyTree:
  """Returns a tree of labels: each leaf gets the label of the first rule that matches its name.

  Args:
    tree: The tree to label; only its names are read.
    rules: Pairs (regular expression, label); the expression must match the whole name.
    allow_unused: The expressions that need not be the first match of any name.

  Returns:
    A tree of the structure of `tree`.

  Raises:
    UserError: If no rule matches a name, or if a rule outside of `allow_unused` is the first match
      of no name.

  Example:
    `label_names(params, [('.*/bias', 'bias'), ('.*', 'weight')])`
  """
  compiled = [(re.compile(pattern), label) for pattern, label in rules]
  used, uncovered = set(), []

  def label_of(path: tuple[Any, ...], _: Any) -> Any:
    name = _name(path)
    for i, (pattern, label) in enumerate(compiled):
      if pattern.fullmatch(name):
        used.add(i)
        return label
    uncovered.append(name)
    return None

  labels = jax.tree_util.tree_map_with_path(label_of, tree)
  patterns = [pattern for pattern, _ in rules]
  if uncovered:
    raise errors.UserError(
      f'no rule matches {len(uncovered)} names: {_shorten(uncovered)}; the rules are {patterns}'
    )
  unused = [p for i, p in enumerate(patterns) if i not in used and p not in allow_unused]
  if unused:
    names = list(flatten_names(tree))
    raise errors.UserError(
      f'the rules {unused} are the first match of no name; the names are {_shorten(names)}'
    )
  return labels


def _shorten(names: Sequence[str]) -> str:
  rest = len(names) - _SHOWN
  return ', '.join(names[:_SHOWN]) + (f' and {rest} more' if rest > 0 else '')


def merge_strict(target: types.PyTree, source: types.PyTree) -> types.PyTree:
  """Returns the values of `source` in the structure of `target`; names and shapes must be equal.

  Args:
    target: Arrays or `jax.ShapeDtypeStruct`s that say what is expected.
    source: The values, as a tree or as flat `{'a/b/c': leaf}`.

  Returns:
    A tree of the structure of `target` with the leaves of `source`.

  Raises:
    UserError: If names, shapes or dtypes differ; the message shows both sides.
  """
  expected, found = flatten_names(target), flatten_names(source)
  missing = [name for name in expected if name not in found]
  surplus = [name for name in found if name not in expected]
  different = [
    f'{name} (expected {_describe(leaf)}, found {_describe(found[name])})'
    for name, leaf in expected.items()
    if name in found and _describe(leaf) != _describe(found[name])
  ]
  if missing or surplus or different:
    lines = ['the trees differ:']
    for title, names in (
      ('expected and not found', missing),
      ('found and not expected', surplus),
      ('of another shape or dtype', different),
    ):
      if names:
        lines.append(f'  {len(names)} {title}: {_shorten(names)}')
    raise errors.UserError('\n'.join(lines))
  return jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in expected])


def _describe(leaf: Any) -> str:
  dtype = leaf.dtype if hasattr(leaf, 'dtype') else np.asarray(leaf).dtype
  return f'{dtype}{list(np.shape(leaf))}'


def count(tree: types.PyTree) -> int:
  """Returns the number of scalars in a tree of arrays (or of `jax.ShapeDtypeStruct`s)."""
  return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))
