"""Executes the notebook from a fresh kernel of this interpreter."""

import sys
from pathlib import Path

import nbclient
import nbformat
from jupyter_client import kernelspec, manager

_ROOT = Path(__file__).resolve().parent.parent
_NOTEBOOK = _ROOT / 'notebooks' / 'pnoc_step.ipynb'
_MOST_BYTES = 600_000


class _ThisInterpreter(kernelspec.KernelSpecManager):
  """Knows one kernel, that of this interpreter, whatever is installed for the user."""

  def get_kernel_spec(self, kernel_name):
    argv = [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    return kernelspec.KernelSpec(argv=argv, display_name=kernel_name, language='python')


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
  """Runs all cells in the repository's root, in place; raises where a cell does."""
  kernel = manager.AsyncKernelManager(kernel_spec_manager=_ThisInterpreter())
  client = nbclient.NotebookClient(
    notebook, km=kernel, timeout=600, resources={'metadata': {'path': str(_ROOT)}}
  )
  return client.execute()


def _text(cell) -> str:
  return ''.join(out.text for out in cell.outputs if out.output_type == 'stream')


def test_notebook_ends_with_equal_numbers():
  notebook = execute(nbformat.read(_NOTEBOOK, as_version=4))
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
  table = _text(code[-1])
  for name in ('cls', 'cls_re', 're', 'cse', 'total', 'noc'):
    assert f'loss/{name} ' in table
  assert 'are equal.' in table


def test_notebook_is_stored_executed_and_small():
  stored = nbformat.read(_NOTEBOOK, as_version=4)
  nbformat.validate(stored)
  code = [cell for cell in stored.cells if cell.cell_type == 'code']
  assert 'are equal.' in _text(code[-1])
  assert not any(out.output_type == 'error' for cell in code for out in cell.outputs)
  assert _NOTEBOOK.stat().st_size < _MOST_BYTES
