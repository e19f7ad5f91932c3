import errno
import io
import struct

import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from pnoc_jax.engine import clock, log
from pnoc_jax.io import records


class Hand:
  """A clock that is set by hand."""

  def __init__(self):
    self.time = 100.0

  def __call__(self):
    return self.time


def test_resumed_log_has_no_lines_twice(tmp_path):
  for start, steps in ((0, (5, 10, 15)), (10, (15, 20))):
    with log.MetricWriter(tmp_path, total_steps=20, start_step=start, console=None) as writer:
      for step in steps:
        writer.write(step, {'loss/total': float(start)})
  lines = records.read_jsonl(tmp_path / log.METRICS)
  assert [(line['step'], line['loss/total']) for line in lines] == [
    (5, 0.0),
    (10, 0.0),
    (15, 10.0),
    (20, 10.0),
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_tensorboard_reads_the_lines_of_a_resumed_log_once(tmp_path):
  for start, steps in ((0, (5, 10, 15)), (10, (15, 20))):
    with log.MetricWriter(tmp_path, total_steps=20, start_step=start, console=None) as writer:
      for step in steps:
        writer.write(step, {'loss/total': float(start)})
    for file in (tmp_path / 'tensorboard').iterdir():  # Its name has the second.
      file.rename(file.with_name(f'{file.name}.{start}'))
  found = []
  for file in sorted((tmp_path / 'tensorboard').iterdir()):
    for event in _events(file):
      if event.session_log.status == event_pb2.SessionLog.START:
        found = [x for x in found if x[0] < event.step]  # As TensorBoard does.
      found += [(event.step, x.tag, x.simple_value) for x in event.summary.value]
  assert found == [(step, 'loss/total', 10.0 * (step > 10)) for step in (5, 10, 15, 20)]


def _events(file):
  data = file.read_bytes()
  while data:
    (size,) = struct.unpack('<Q', data[:8])  # Then a checksum, the event, and its checksum.
    yield event_pb2.Event.FromString(data[12 : 12 + size])
    data = data[size + 16 :]


def test_a_full_disk_below_tensorboard_is_an_error_and_no_wait(tmp_path, monkeypatch):
  def full(self, data):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with log.MetricWriter(tmp_path, total_steps=100, console=None) as writer:
    monkeypatch.setattr(record_writer.RecordWriter, 'write', full)
    with pytest.raises(OSError, match='No space'):
      writer.write(1, {'loss/total': 1.0})


def test_a_record_has_its_epoch_and_one_line_on_the_console(tmp_path):
  shown = []
  with log.MetricWriter(
    tmp_path, total_steps=100, steps_per_epoch=40, tensorboard=False, console=shown.append
  ) as writer:
    writer.write(
      50, {'loss/total': 0.25, 'other': 1.0, 'time/images_per_second': 12.0, 'time/eta': 75.0}
    )
  assert shown == ['step 50/100  epoch 1.25  loss/total 0.25  12.0 images/s  1 min 15 s left']
  assert records.read_jsonl(tmp_path / log.METRICS)[0]['epoch'] == 1.25


def test_clock_leaves_out_the_compilation_and_the_pauses():
  hand = Hand()
  ticking = clock.Clock(total_steps=21, batch_size=4, now=hand)
  assert ticking.read(1) == {}
  hand.time += 60  # Compilation.
  ticking.start(1)
  hand.time += 10
  with ticking.pause():
    hand.time += 30
  read = ticking.read(11)
  assert read['time/step'] == pytest.approx(1.0)
  assert read['time/images_per_second'] == pytest.approx(4.0)
  assert read['time/eta'] == pytest.approx(40.0)
  assert clock.duration(3 * 3600 + 125) == '3 h 2 min'


def test_the_time_left_leaves_out_what_came_before_the_first_item():
  hand, file = Hand(), io.StringIO()
  with log.Progress(30, 'priors', file=file, now=hand) as progress:
    hand.time += 100.0  # The programs are compiled.
    for _ in range(30):
      hand.time += 1.0
      progress.advance()
  said = file.getvalue().splitlines()
  assert said[0] == 'priors: 1/30, 1 min 41 s'
  assert said[1] == 'priors: 11/30, 1 min 51 s, 19 s left'


def test_progress_without_a_terminal_prints_a_line_now_and_then():
  hand, file = Hand(), io.StringIO()
  with log.Progress(100, 'priors', done=20, file=file, now=hand) as progress:
    for _ in range(80):
      hand.time += 0.5
      progress.advance()
  assert file.getvalue().splitlines() == [
    'priors: 40/100, 10 s, 30 s left',
    'priors: 60/100, 20 s, 20 s left',
    'priors: 80/100, 30 s, 10 s left',
    'priors: 100/100, 40 s',
    'priors: 100/100, 40 s',
  ]
