import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.io import checkpoints
from pnoc_jax.parallel import arrays, sharding
from tests.engine import quadratic


def state_of(mesh, value=0.0):
  return arrays.replicate(
    jax.tree.map(lambda x: x + np.asarray(value, x.dtype), quadratic.init()), mesh
  )


def test_round_trip_on_eight_devices(mesh, tmp_path):
  state = state_of(mesh)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert saved.restore_latest(state) is None
    for step in (1, 2, 3):
      saved.save(step, state_of(mesh, step), {'choices': [1, 2]})
    saved.save(3, state_of(mesh, 50))  # Already there: left alone.
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(mesh)), state
  )
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert saved.steps() == [2, 3]
    step, restored, extra = saved.restore_latest(abstract)
  assert (step, extra) == (3, {'choices': [1, 2]})
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert restored.params['half'].dtype == jnp.bfloat16
  assert restored.params['w'].sharding == sharding.replicated(mesh)
  np.testing.assert_array_equal(restored.params['w'], 4.0)


def test_a_state_may_be_donated_while_it_is_being_written(mesh, tmp_path):
  update, batches = quadratic.make_update(mesh), quadratic.batches(mesh)
  state = state_of(mesh)
  expected = {}
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=10) as saved:
    for step in range(1, 6):
      state, _ = update(state, next(batches), step)
      expected[step] = np.array(state.params['w'])
      saved.save(step, state)
  for step in (5, 4, 3):
    with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=10, report=str) as saved:
      restored = saved.restore_latest(state_of(mesh))
      assert restored.step == step
      np.testing.assert_array_equal(restored.state.params['w'], expected[step])
    damage(tmp_path / 'checkpoints' / str(step))


def damage(step_directory):
  """Cuts every file of the state in half, as a full disk does."""
  for path in (step_directory / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_read(mesh, tmp_path):
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(10, state_of(mesh, 10))
    saved.save(20, state_of(mesh, 20))
  damage(directory / '20')
  (directory / '30.orbax-checkpoint-tmp').mkdir()  # A save that was killed.
  (tmp_path / 'checkpoints_unreadable' / '20-1' / 'state').mkdir(parents=True)
  reports = []
  with checkpoints.Checkpoints(directory, report=reports.append) as saved:
    restored = saved.restore_latest(state_of(mesh))
    assert restored.step == 10
    np.testing.assert_array_equal(restored.state.params['w'], 11.0)
    assert len(reports) == 1
    assert 'step 20' in reports[0]
    saved.save(20, state_of(mesh, 21))  # Its place is free again.
    assert saved.restore_latest(state_of(mesh)).step == 20
  assert (tmp_path / 'checkpoints_unreadable' / '20').is_dir()


def test_a_run_does_not_begin_anew_beside_damaged_checkpoints(mesh, tmp_path):
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(10, state_of(mesh))
  damage(directory / '10')
  for _ in range(2):  # The same command does not help: nobody has told it to.
    with (
      checkpoints.Checkpoints(directory, report=str) as saved,
      pytest.raises(errors.UserError, match='discard_unreadable=True, or move that'),
    ):
      saved.restore_latest(state_of(mesh))
  with checkpoints.Checkpoints(directory, discard_unreadable=True) as saved:
    assert saved.restore_latest(state_of(mesh)) is None


def test_an_error_that_proves_no_damage_moves_nothing(mesh, tmp_path, monkeypatch):
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(1, state_of(mesh))
    saved.save(2, state_of(mesh))

  def fail(*_):
    raise ValueError('UNAVAILABLE: Stale file handle')

  with checkpoints.Checkpoints(directory, report=str) as saved:
    with monkeypatch.context() as patched:
      patched.setattr(checkpoints.Checkpoints, '_restore', fail)
      with pytest.raises(errors.UserError, match=r'Stale .*its files are as they were written'):
        saved.restore_latest(state_of(mesh))
      (directory / '2' / 'files.json').unlink()
      with pytest.raises(errors.UserError, match='nothing proves that it is damaged'):
        saved.restore_latest(state_of(mesh))
    assert saved.restore_latest(state_of(mesh)).step == 2
  assert (directory / '2' / 'files.json').is_file()  # It could be read, so it is whole.
  assert not (tmp_path / 'checkpoints_unreadable').exists()


def test_reads_that_end_after_another_has_failed_print_nothing(mesh, tmp_path, monkeypatch):
  directory, told = tmp_path / 'checkpoints', []
  monkeypatch.setattr(sys, 'unraisablehook', lambda args: told.append(str(args.exc_value)))

  def end(text):
    sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))

  with checkpoints.Checkpoints(directory) as saved:
    saved.save(1, state_of(mesh))
    assert saved.restore_latest(state_of(mesh)).step == 1
    end('Event loop is closed')
    assert told == ['Event loop is closed']  # All was read, so it is as it was.
    (directory / '1' / 'files.json').unlink()
    (directory / '1' / 'state' / 'manifest.ocdbt').unlink()
    with pytest.raises(errors.UserError, match='cannot be read now'):
      saved.restore_latest(state_of(mesh))
  end('Event loop is closed')
  end('another')
  assert told == ['Event loop is closed', 'another']


def test_a_checkpoint_without_its_metadata_is_refused_in_words(mesh, tmp_path):
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(1, state_of(mesh))
  (directory / '1' / 'files.json').unlink()
  (directory / '1' / 'state' / '_METADATA').unlink()
  with (
    checkpoints.Checkpoints(directory) as saved,
    pytest.raises(errors.UserError, match='which arrays it has is missing'),
  ):
    saved.restore_latest(state_of(mesh))


def test_a_single_bit_is_a_damage(mesh, tmp_path):
  directory = tmp_path / 'checkpoints'
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(1, state_of(mesh, 1))
    saved.save(2, state_of(mesh, 2))
  path = max((directory / '2' / 'state').rglob('*'), key=lambda x: x.stat().st_size * x.is_file())
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  reports = []
  with checkpoints.Checkpoints(directory, report=reports.append) as saved:
    assert saved.restore_latest(state_of(mesh)).step == 1
  assert f'{path.name} has other contents than were written' in reports[0]


def test_another_state_is_refused_with_both_sides(mesh, tmp_path):
  state = state_of(mesh)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    saved.save(1, state)
    other = state.replace(
      params={'w': state.params['w'].astype(jnp.bfloat16), 'more': state.params['w']}
    )
    with pytest.raises(errors.UserError) as caught:
      saved.restore_latest(other)
  message = str(caught.value)
  assert 'params/w: float32[4] in the checkpoint, bfloat16[4] expected' in message
  assert 'params/half: bfloat16[2] in the checkpoint, absent expected' in message
  assert 'params/more: absent in the checkpoint, float32[4] expected' in message


def test_a_checkpoint_that_could_not_be_written_leaves_no_note_that_passes_for_one(mesh, tmp_path):
  directory, told = tmp_path / 'checkpoints', []
  with checkpoints.Checkpoints(directory) as saved:
    saved.save(1, state_of(mesh, 1))
  checkpoints._note_all([directory / '2'])
  assert not (directory / '2').exists()
  # As runs of earlier versions have left it.
  (directory / '2').mkdir()
  (directory / '2' / 'files.json').write_text('{}')
  with checkpoints.Checkpoints(directory, report=told.append) as saved:
    assert saved.restore_latest(state_of(mesh)).step == 1
  assert 'step 2' in told[0] and 'it holds nothing' in told[0]


def test_a_file_in_the_place_of_checkpoints_is_told_before_a_step(tmp_path):
  (tmp_path / 'checkpoints').touch()
  with pytest.raises(errors.UserError, match='holds no checkpoints, it is a file'):
    checkpoints.Checkpoints(tmp_path / 'checkpoints')
