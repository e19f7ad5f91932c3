"""Records polygons and run-length codes with their masks by COCO's own tools (pycocotools 2.0).

python tools/record_coco_regions.py tests/fixtures/coco_regions.npz
"""

import sys

import numpy as np
from pycocotools import mask as coco_mask

COUNT = 32


def main() -> None:
  """Draws outlines of several kinds, on and beyond the border too."""
  key = np.random.default_rng(0)
  sizes, points, masks, codes = [], [], [], []
  for number in range(COUNT):
    height, width = (int(x) for x in key.integers(1, 60, 2))
    corners = int(key.integers(3, 20))
    if number % 3 == 0:  # Crosses itself.
      outline = np.round(key.random((corners, 2)) * (width, height), 2)
    elif number % 3 == 1:  # Reaches beyond the image.
      outline = key.integers(-5, 65, (corners, 2)).astype(float)
    else:  # A star.
      angle, radius = np.sort(key.random(corners) * 2 * np.pi), key.random(corners) / 2 + 0.5
      star = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None] + 1
      outline = np.round(star * (width / 2, height / 2), 2)
    codes_of = coco_mask.frPyObjects([outline.ravel().tolist()], height, width)
    mask = coco_mask.decode(coco_mask.merge(codes_of))
    sizes.append((height, width))
    points.append(outline.ravel())
    masks.append(np.packbits(mask))
    codes.append(coco_mask.encode(np.asfortranarray(mask))['counts'].decode())
  np.savez_compressed(
    sys.argv[1],
    sizes=np.array(sizes),
    points=np.concatenate(points),
    point_counts=np.array([len(x) for x in points]),
    masks=np.concatenate(masks),
    mask_counts=np.array([len(x) for x in masks]),
    codes=np.array(codes),
  )


if __name__ == '__main__':
  main()
