"""Records what exported networks compute in PyTorch, for tests/runs/test_exports.py.

`pip install -e . torch torchvision timm && python tools/record_export_fixture.py`

The networks are those of `tests/exported_networks.py`, built by the example that an export holds
(`pnoc_jax/runs/exports/templates/torch.py`), which takes every tensor of the export and no other.
Recorded with torch 2.14.1 (CPU) and timm 1.0.31.
"""

import runpy

import exported_networks
import numpy as np
import torch
from record_fixtures import _FIXTURES, _ROOT, seeded_tensors

from pnoc_jax.runs.exports import export


def main() -> None:
  """Records the fixture."""
  example = runpy.run_path(str(_ROOT / 'pnoc_jax/runs/exports/templates/torch.py'))
  image = seeded_tensors.image((1, *exported_networks.SIZE, 3))
  arrays = {}
  for case in exported_networks.CASES:
    found = exported_networks.network(case)
    contract = export.describe(found, export.Format.TORCH, exported_networks.SIZE)
    model = example['make'](contract).eval()
    tensors = export.state_dict(found)
    model.load_state_dict({n: torch.from_numpy(x.copy()) for n, x in tensors.items()})
    with torch.inference_mode():
      result = model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    arrays[case] = result.transpose(0, 2, 3, 1)
    print(case, arrays[case].shape, float(np.abs(result).max()))
  np.savez_compressed(_FIXTURES / 'exports.npz', **arrays)


if __name__ == '__main__':
  main()
