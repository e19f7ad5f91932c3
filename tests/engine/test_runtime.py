"""How many processes load data where the config leaves it to the machine."""

import types

import pytest

from pnoc_jax.engine import runtime


@pytest.mark.parametrize(
  ('cores', 'shared', 'expected'),
  [(2, 64, 0), (8, 64, 4), (16, 64, 8), (96, 64, 16), (96, 0.0625, 0)],
)
def test_loaders_follow_the_cores_and_the_shared_memory(monkeypatch, cores, shared, expected):
  monkeypatch.setattr(runtime.os, 'sched_getaffinity', lambda _: range(cores), raising=False)
  usage = types.SimpleNamespace(total=shared * 2**30)
  monkeypatch.setattr(runtime.shutil, 'disk_usage', lambda path: usage)
  assert runtime.RuntimeConfig(workers=None).loaders == expected
  assert runtime.RuntimeConfig().loaders == 0 and runtime.RuntimeConfig(workers=3).loaders == 3
