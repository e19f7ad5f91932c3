"""Records what OpenCV's CLAHE makes of a small plane, for tests/data/augment/test_equalization.py.

`pip install opencv-python-headless && python tools/record_clahe_fixture.py` (recorded with 5.0.0)
"""

from pathlib import Path

import cv2
import numpy as np

_FILE = Path(__file__).resolve().parent.parent / 'tests' / 'fixtures' / 'clahe.npz'
_SHAPE = (37, 45)


def make_plane() -> np.ndarray:
  """Returns u8[37, 45] of waves, an edge and noise."""
  rng = np.random.default_rng(7)
  y, x = np.indices(_SHAPE)
  plane = 90 + 40 * np.sin(x / 9) + 30 * (y > 20) + rng.integers(-6, 7, _SHAPE)
  return plane.clip(0, 255).astype(np.uint8)


def main() -> None:
  """Writes the fixture."""
  plane = make_plane()
  even = np.ascontiguousarray(plane[:36, :44])
  np.savez_compressed(
    _FILE,
    plane=plane,
    clip_2=cv2.createCLAHE(2.0, (8, 8)).apply(plane),
    clip_40=cv2.createCLAHE(40.0, (8, 8)).apply(plane),
    even=cv2.createCLAHE(2.0, (4, 4)).apply(even),
  )


if __name__ == '__main__':
  main()
