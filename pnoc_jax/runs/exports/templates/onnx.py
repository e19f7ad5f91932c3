"""Runs the network: python example.py IMAGE [LABELS.png]. Needs onnxruntime, numpy and pillow."""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) < 2:
  sys.exit(__doc__)
here = pathlib.Path(__file__).parent
contract = json.loads((here / 'model.json').read_text(encoding='utf-8'))
session = onnxruntime.InferenceSession(here / 'model.onnx')
size = contract['input']['height'], contract['input']['width']

kinds = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'GIF', 'PPM')
image = ImageOps.exif_transpose(Image.open(sys.argv[1], formats=kinds)).convert('RGB')
pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC), np.uint8)
found = session.run(None, {session.get_inputs()[0].name: pixels[None]})
if contract['network'] == 'segmentation':
  labels = Image.fromarray(found[0][0].argmax(-1).astype(np.uint8)).resize(image.size, 0)
  labels.putpalette(np.array(contract['palette'], np.uint8).tobytes())
  labels.save(sys.argv[2] if len(sys.argv) > 2 else 'labels.png')
  counts = np.bincount(np.array(labels).ravel())
  print({contract['classes'][k]: int(n) for k, n in enumerate(counts) if n})
else:
  print({name: round(float(p), 3) for name, p in zip(contract['classes'], found[0][0])})
  print(f'maps: {found[1][0].shape}')
