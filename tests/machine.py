"""The tests' machine, which the processes that tests start share: fake devices, quick compiling."""

import os
from importlib import metadata

DEVICES = 8
QUICK = ('--xla_backend_optimization_level=0', '--xla_llvm_disable_expensive_passes=true')
if tuple(int(x) for x in metadata.version('jaxlib').split('.')[:2]) < (0, 12):
  # Later versions do not know it, and a flag that is not known ends the process.
  QUICK = (*QUICK, '--xla_cpu_use_fusion_emitters=false')
"""Programs are compiled quickly rather than well: compiling is most of the suite's time.

Flags in the caller's XLA_FLAGS win: `--xla_backend_optimization_level=3
--xla_llvm_disable_expensive_passes=false` tests the programs that users run; before jax 0.12 with
`--xla_cpu_use_fusion_emitters=true`, too.
"""


def xla_flags(devices: int) -> str:
  """The flags of a process with so many devices: the tests', and after them the caller's."""
  given = os.environ.get('XLA_FLAGS', '').split()
  kept = [x for x in given if x not in QUICK and 'host_platform_device_count' not in x]
  return ' '.join([*QUICK, *kept, f'--xla_force_host_platform_device_count={devices}'])


def environment(devices: int = 1) -> dict[str, str]:
  """The environment of a process that a test starts."""
  return os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': xla_flags(devices)}
