"""What the benchmarks share: flags, a process of its own for each row, peaks of devices, the table.

Imports neither jax nor torch. The benchmark that imports it has put the repository on `sys.path`.
"""

import argparse
import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pnoc_jax.errors import UserError
from pnoc_jax.parallel import targets

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}

# Title, key of the row, width, format.
_COLUMNS = (
  ('backbone', 'backbone', 13, 's'),
  ('method', 'method', 8, 's'),
  ('form', 'form', 14, 's'),
  ('images/s', 'images_per_s', 9, '.1f'),
  ('ms/step', 'step_ms', 9, '.1f'),
  ('GFLOP', 'gflop', 9, '.1f'),
  ('MFU %', 'mfu', 6, '.1f'),
  ('plan MiB', 'planned_mib', 9, '.0f'),
  ('peak MiB', 'peak_mib', 9, '.0f'),
  ('trace s', 'trace_s', 8, '.1f'),
  ('compile s', 'compile_s', 9, '.1f'),
  ('cached s', 'cached_s', 8, '.1f'),
)


def make_parser(description: str, methods: Collection[str]) -> argparse.ArgumentParser:
  """Makes the parser of the flags that the step benchmarks have in common."""
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--backbone', nargs='+', default=['resnest50'], help='names of pnoc_jax.nn.backbones')
  add('--method', nargs='+', choices=methods, default=['vanilla', 'puzzle', 'poc', 'pnoc'])
  add('--size', type=int, default=512, help='side of the images, px')
  add('--batch', type=int, default=16, help='images to a step')
  add('--classes', type=int, default=20)
  add('--output_stride', type=int, choices=(8, 16, 32), default=16)
  add('--precision', choices=('float32', 'bfloat16'), default='float32')
  add('--remat', action='store_true', help='compute activations again in the backward pass')
  add('--steps', type=int, default=20, help='timed steps; 0 compiles only')
  add('--warmup', type=int, default=3, help='steps before these')
  add('--clock', choices=CLOCKS, default='wall', help='cpu: time of a CPU shared with others')
  add('--peak_tflops', type=float, help="of the device; default: from its sheet, or a matmul's")
  add('--json', type=Path, help='also write the rows to this file')
  add('--turn', type=Path, help='a file: no step is taken before it exists; see `await_turn`')
  return parser


def await_turn(settings: argparse.Namespace) -> None:
  """Waits until `--turn` exists, so that several benchmarks compile at once and run in turn.

  `TURN.ready` then says that this one waits.
  """
  if settings.turn:
    settings.turn.with_name(f'{settings.turn.name}.ready').touch()
    while not settings.turn.exists():
      time.sleep(0.1)


def make_batch(settings: argparse.Namespace) -> dict[str, np.ndarray]:
  """Returns u8 noise, its boxes, and one to three classes an image."""
  rng = np.random.default_rng(2)
  size, batch, classes = settings.size, settings.batch, settings.classes
  label = np.zeros((batch, classes), np.float32)
  for row in label:
    row[rng.choice(classes, rng.integers(1, min(3, classes) + 1), replace=False)] = 1
  return {
    'image': rng.integers(0, 256, (batch, size, size, 3), np.uint8),
    'box': np.tile(np.array([0, 0, size, size], np.int32), (batch, 1)),
    'label': label,
    'index': np.arange(batch, dtype=np.int32),
  }


def peak_flops(
  settings: argparse.Namespace, device_kind: str, matmul: Callable[[int], None]
) -> tuple[float, str]:
  """Returns the FLOP/s to compare with, and where the number is from.

  Args:
    settings: the flags.
    device_kind: the device's name, to look its sheet up.
    matmul: multiplies two square matrices of a side and waits; for a device without a sheet.

  Returns:
    The flag's number, or the sheet's, or the best of several matrix products.
  """
  if settings.peak_tflops:
    return 1e12 * settings.peak_tflops, f'{settings.peak_tflops:g} TFLOP/s as given'
  for name, device in targets.DEVICES.items():
    if device.sheet and name.lower() in device_kind.lower():
      sheet = device.flops(16 if settings.precision == 'bfloat16' else 32)
      return sheet, f'{sheet / 1e12:g} TFLOP/s by the sheet of the {name}'
  side, times, clock = 2048, [], CLOCKS[settings.clock]
  for _ in range(6):
    start = clock()
    matmul(side)
    times.append(clock() - start)
  found = 2 * side**3 / min(times)
  what = f'a {side} x {side} {settings.precision} matmul'
  return found, f'{found / 1e12:.3g} TFLOP/s reached in {what}'


def run(
  measure: Callable[[argparse.Namespace], dict[str, Any]], settings: argparse.Namespace
) -> list[dict[str, Any]]:
  """Measures every (backbone, method) and prints the table as it grows.

  Args:
    measure: settings -> a row; `settings.backbone` and `.method` are single names there. A module's
      function, so that another process finds it.
    settings: the flags.

  Returns:
    The rows; `row['status']` is 'ok', 'OOM' or what went wrong.
  """
  print('  '.join(f'{title:>{width}}' for title, _, width, _ in _COLUMNS), flush=True)
  found = []
  for backbone in settings.backbone:
    for method in settings.method:
      one = argparse.Namespace(**{**vars(settings), 'backbone': backbone, 'method': method})
      row = {'backbone': backbone, 'method': method, **_in_process(measure, one)}
      found.append(row)
      print(format_row(row), flush=True)
      if settings.json:
        # After every row: what is measured is measured.
        settings.json.write_text(json.dumps(found, indent=1, default=str) + '\n', encoding='utf-8')
  for note in dict.fromkeys(row['note'] for row in found if 'note' in row):
    print(note)
  return found


def _in_process(measure, settings) -> dict[str, Any]:
  """Measures in a new process: memory peaks are the row's own, and a killed row is only a row."""
  context = multiprocessing.get_context('spawn')
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(target=_send, args=(measure, settings, sender))
  process.start()
  sender.close()
  try:
    row = receiver.recv()
  except EOFError:
    row = None
  process.join()
  if row is None:
    killed = process.exitcode == -signal.SIGKILL  # What the kernel does when memory runs out.
    row = {'status': 'OOM' if killed else f'the process ended with {process.exitcode}'}
  return row


def _send(measure, settings, sender) -> None:
  try:
    row = {'status': 'ok', **measure(settings)}
  except Exception as error:  # Whatever it is, the next row goes on.
    row = {'status': status_of(error)}
    if row['status'] != 'OOM' and not isinstance(error, UserError):
      traceback.print_exc(file=sys.stderr)
  sender.send(row)
  sender.close()


def status_of(error: Exception) -> str:
  """Returns 'OOM' where memory ran out, else the error in one line."""
  text = str(error)
  signs = ('RESOURCE_EXHAUSTED', 'out of memory', 'not enough memory')
  if isinstance(error, MemoryError) or any(sign.lower() in text.lower() for sign in signs):
    return 'OOM'
  return f'{type(error).__name__}: {text.splitlines()[0] if text else ""}'


def format_row(row: dict[str, Any]) -> str:
  """Returns a line of the table; a number that does not exist is a dash."""
  if row['status'] != 'ok':
    return f'{row["backbone"]:>13}  {row["method"]:>8}  {row["status"]}'
  cells = []
  for _, key, width, form in _COLUMNS:
    value = row.get(key)
    cells.append(f'{"-" if value is None else format(value, form):>{width}}')
  return '  '.join(cells)


def median(times: Sequence[float]) -> float:
  """Returns the median of times in seconds."""
  ordered = sorted(times)
  middle = len(ordered) // 2
  return (ordered[middle] + ordered[~middle]) / 2
