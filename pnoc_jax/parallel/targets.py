"""Accelerators that a run is thought of on: their data sheets, and names like `h100:8`."""

import dataclasses
import math
import re

from pnoc_jax.errors import UserError, did_you_mean

_GB, _TB, _T = 1e9, 1e12, 1e12


@dataclasses.dataclass(frozen=True)
class Device:
  """One device by its vendor's sheet.

  Attributes:
    bfloat16: dense FLOP/s in bfloat16.
    float32: dense FLOP/s of float32 as its matrix units run it by default: TF32 on NVIDIA, one
      bfloat16 pass on TPU.
    bandwidth: bytes/s of its memory.
    memory: bytes.
    link: bytes/s that it sends to its neighbours, over all links in one direction.
    sheet: whether a vendor says so; else the numbers are only there to have some.
  """

  bfloat16: float
  float32: float
  bandwidth: float
  memory: float
  link: float
  sheet: bool = True

  def flops(self, bits: int) -> float:
    """FLOP/s of products of numbers of so many bits."""
    return self.bfloat16 if bits <= 16 else self.float32


# NVIDIA: data sheets of the products (H100 PCIe and SXM, H200, GH200, B200, A100 80GB SXM, A30,
# A10, L40S, L4), without sparsity; link: half of NVLink's bidirectional number, or of PCIe's.
# Google: cloud.google.com/tpu/docs, the pages of v4, v5e, v5p and v6e; link: bandwidth between
# chips. The first name that is part of a device's kind is its row.
DEVICES = {
  'H100 PCIe': Device(756 * _T, 378 * _T, 2.0 * _TB, 80 * _GB, 64 * _GB),
  'H100': Device(989 * _T, 494 * _T, 3.35 * _TB, 80 * _GB, 450 * _GB),
  'GH200': Device(989 * _T, 494 * _T, 4.0 * _TB, 96 * _GB, 450 * _GB),
  'H200': Device(989 * _T, 494 * _T, 4.8 * _TB, 141 * _GB, 450 * _GB),
  'B200': Device(2250 * _T, 1125 * _T, 8.0 * _TB, 180 * _GB, 900 * _GB),
  'A100': Device(312 * _T, 156 * _T, 2.039 * _TB, 80 * _GB, 300 * _GB),
  'A30': Device(165 * _T, 82 * _T, 933 * _GB, 24 * _GB, 100 * _GB),
  'A10': Device(125 * _T, 62 * _T, 600 * _GB, 24 * _GB, 32 * _GB),
  'L40S': Device(362 * _T, 183 * _T, 864 * _GB, 48 * _GB, 32 * _GB),
  'L4': Device(121 * _T, 60 * _T, 300 * _GB, 24 * _GB, 32 * _GB),
  'TPU v4': Device(275 * _T, 275 * _T, 1.228 * _TB, 32 * 2**30, 300 * _GB),
  'TPU v5 lite': Device(197 * _T, 197 * _T, 819 * _GB, 16 * 2**30, 200 * _GB),
  'TPU v5e': Device(197 * _T, 197 * _T, 819 * _GB, 16 * 2**30, 200 * _GB),
  'TPU v5': Device(459 * _T, 459 * _T, 2.765 * _TB, 95 * 2**30, 600 * _GB),
  'TPU v6': Device(918 * _T, 918 * _T, 1.64 * _TB, 32 * 2**30, 448 * _GB),
  'CPU': Device(0.1 * _T, 0.1 * _T, 20 * _GB, 16 * 2**30, 10 * _GB, sheet=False),
}

# The part before the colon of a target -> the row above.
_KINDS = {
  'h100': 'H100',
  'h200': 'H200',
  'b200': 'B200',
  'a100': 'A100',
  'v4': 'TPU v4',
  'v5e': 'TPU v5e',
  'v5p': 'TPU v5',
  'v6e': 'TPU v6',
  'cpu': 'CPU',
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Some devices of one kind.

  Attributes:
    kind: as in the name, e.g. `v5e`.
    shape: how they are connected: one number, or a slice's sides.
    device: one of them.
  """

  kind: str
  shape: tuple[int, ...]
  device: Device

  @property
  def count(self) -> int:
    """How many devices there are."""
    return math.prod(self.shape)

  @property
  def platform(self) -> str:
    """What `platforms.kind` calls it: 'cpu', 'gpu' or 'tpu'."""
    return 'cpu' if self.kind == 'cpu' else 'tpu' if self.kind.startswith('v') else 'gpu'

  @property
  def name(self) -> str:
    """The name that `parse` reads."""
    return f'{self.kind}:{"x".join(map(str, self.shape))}'


def parse(name: str) -> Target:
  """Reads `h100:8`, `v5e:4x4`, `v5p:2x2x1`; a kind alone is one device.

  Raises:
    UserError: there is no such kind, or what follows the colon is no number of devices.
  """
  kind, _, size = name.lower().partition(':')
  if kind not in _KINDS:
    hint = did_you_mean(kind, list(_KINDS))
    raise UserError(
      f'the target {name!r} is of no known kind of device; known: {", ".join(_KINDS)}{hint}; '
      'e.g. h100:8 or v5e:4x4'
    )
  if not re.fullmatch(r'([1-9]\d*(x[1-9]\d*)*)?', size):
    raise UserError(f'the target {name!r} has no number of devices: write e.g. {kind}:8')
  return Target(kind, tuple(map(int, (size or '1').split('x'))), DEVICES[_KINDS[kind]])
