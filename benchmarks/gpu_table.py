"""Joins what the parts of benchmarks/gpu.sh found into one file and one table.

    python benchmarks/gpu_table.py gpu

Reads `gpu/parts/*.json` (the rows of a part) and `*.said` (why a part has none, in words); writes
`gpu/gpu.json` and prints `gpu/gpu.md`. Needs Python alone.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SHOWN = (
  ('form', 's'),
  ('what', 's'),
  ('method', 's'),
  ('images_per_s', '.1f'),
  ('step_ms', '.1f'),
  ('mfu', '.1f'),
  ('planned_mib', '.0f'),
  ('peak_mib', '.0f'),
  ('compile_s', '.1f'),
  ('device_ms', '.2f'),
  ('cpu_ms', '.1f'),
  ('seconds', '.4f'),
  ('difference', '.1e'),
  ('bound', '.1e'),
  ('weights', '.1e'),
  ('equal', '.3f'),
  ('error', '.1e'),
  ('ratios', 's'),
)
"""What a line says of a row, in this order, where the row has it."""


def collect(parts: Path) -> dict[str, list[dict[str, Any]]]:
  """The rows of each part; of a part that failed, one that says why."""
  found = {
    path.stem: json.loads(path.read_text(encoding='utf-8')) for path in sorted(parts.glob('*.json'))
  }
  for path in sorted(parts.glob('*.said')):
    found[path.stem] = [
      *found.get(path.stem, []),
      {'status': path.read_text(encoding='utf-8').strip()},
    ]
  return found


def lines(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
  """The table, a line a row."""
  yield '| part | found |'
  yield '|---|---|'
  for name, rows in sorted(found.items()):
    for row in rows:
      status = row.get('status', 'ok')
      cells = [
        f'{key} {format(row[key], form)}' for key, form in _SHOWN if row.get(key) is not None
      ]
      yield f'| {name} | {", ".join(cells if status == "ok" else [*cells[:1], status])} |'


def main(argv: list[str]) -> None:
  """Writes both files and prints the table."""
  out = Path(argv[1])
  found = collect(out / 'parts')
  text = '\n'.join(lines(found))
  (out / 'gpu.json').write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
  (out / 'gpu.md').write_text(text + '\n', encoding='utf-8')
  print(text)


if __name__ == '__main__':
  main(sys.argv)
