"""The plan says what a run takes of the disk; too little room, or a broken disk, is told."""

import errno
import types

import numpy as np
import pytest

from pnoc_jax import config as config_lib
from pnoc_jax.errors import UserError
from pnoc_jax.runs import crews, disk, graph
from pnoc_jax.stages.common import stage

MIB = 1 << 20


def _ask(monkeypatch, tmp_path, free, status=graph.Status.RUN):
  """What is said of the priors of 100 images of 1000 x 1000 px with two classes: 124 MiB."""
  monkeypatch.setattr(disk.shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=free))
  entry = next(x for x in stage.stages(config_lib.PipelineConfig) if x.name == 'priors')

  class Source:
    labels = np.ones((100, 2))

    def __len__(self):
      return 100

    def size(self, index):
      return 1000, 1000

  plan = [graph.Planned(entry, tmp_path / 'priors', status, {}, {})]
  config = config_lib.PipelineConfig()
  config.priors.splits = ('train',)
  return disk.ask(config, plan, {'train': Source()}, tmp_path)


def test_the_plan_says_what_products_take(monkeypatch, tmp_path):
  said, warning = _ask(monkeypatch, tmp_path, 1000 * MIB)
  assert said == 'about 124 MiB for products (priors 124 MiB); free are 1000 MiB' and not warning


def test_of_a_stage_that_is_half_done_the_rest_counts(monkeypatch, tmp_path):
  (tmp_path / 'priors' / 'train').mkdir(parents=True)
  for i in range(75):
    (tmp_path / 'priors' / 'train' / f'{i}.npz').touch()
  said, warning = _ask(monkeypatch, tmp_path, 100 * MIB, graph.Status.RESUME)
  assert 'about 31 MiB' in said and not warning


def test_too_little_room_is_warned_of_and_far_too_little_refused(monkeypatch, tmp_path):
  (tmp_path / 'priors.old1' / 'train').mkdir(parents=True)
  (tmp_path / 'priors.old1' / 'train' / '0.npz').write_bytes(bytes(3 << 20))
  said, warning = _ask(monkeypatch, tmp_path, 105 * MIB)
  assert warning.endswith(f'{said}; priors.old1 (3 MiB) of earlier reruns could be removed')
  with pytest.raises(UserError, match=r'too little room, about 124 MiB.*priors\.old1.*nothing was'):
    _ask(monkeypatch, tmp_path, 52 * MIB)


@pytest.mark.parametrize(
  ('cause', 'said'),
  [
    (OSError(errno.EIO, 'Input/output error', 'x.png'), 'a disk fails ('),
    (OSError(errno.EFBIG, 'File too large'), 'ulimit -f'),
    (ValueError('UNAVAILABLE: Stale file handle'), 'a disk fails ('),
    (OSError(errno.EDQUOT, 'Disk quota exceeded'), 'there is no room for a file ('),
    (PermissionError(errno.EACCES, 'Permission denied', 'x.png'), 'chmod u+rwX'),
    (IsADirectoryError(errno.EISDIR, 'Is a directory', 'x.png'), 'move away what is there'),
    (OSError(errno.ENAMETOOLONG, 'File name too long', 'x.png'), 'name another one'),
  ],
)
def test_a_disk_that_fails_is_told_in_all_processes(tmp_path, cause, said):
  error = RuntimeError('saving failed')
  error.__cause__ = cause
  text, code = crews.end(error, tmp_path)
  assert text.startswith('error: ') and said in text and code == 1
  assert crews.end(RuntimeError('another'), tmp_path) is None


def test_the_end_of_another_process_is_told_in_a_line(tmp_path, monkeypatch):
  error = RuntimeError(
    'UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection '
    'closed by peer [127.0.0.1]:53420'
  )
  assert crews.end(error, tmp_path) is None  # A process that is alone has lost none.
  monkeypatch.setattr(crews.company.distributed.global_state, 'num_processes', 2)
  text, code = crews.end(error, tmp_path)
  assert text.startswith('error: another process of this run has ended (UNKNOWN: Gloo')
  assert text.endswith('the same command resumes') and code == 1
  assert crews.end(RuntimeError('another'), tmp_path) is None


def test_what_killed_runs_left_is_removed_under_the_lock(tmp_path):
  left = tmp_path / '.config.json.0123456789abcdef.tmp'
  below = tmp_path / 'report' / '.index.html.0123456789abcdef.tmp'
  below.parent.mkdir()
  for path in (left, below):
    path.touch()
  others = types.SimpleNamespace(share=lambda text: [text])
  with crews.held(tmp_path, crews.Crew(others, lambda: False)):
    # That of a stage goes as the stage begins.
    assert not left.exists() and below.exists()
