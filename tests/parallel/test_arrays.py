import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoc_jax import errors
from pnoc_jax.parallel import arrays, compile, sharding
from pnoc_jax.parallel import mesh as mesh_lib
from pnoc_jax.parallel.compile import BATCH, REPLICATED


def test_a_batch_is_split_along_its_examples(mesh):
  image = np.arange(16 * 2, dtype=np.uint8).reshape(16, 2)
  batch = arrays.to_global({'image': image, 'index': np.arange(16, dtype=np.int32)}, mesh)
  assert batch['image'].sharding == sharding.batch(mesh)
  assert {x.data.shape for x in batch['image'].addressable_shards} == {(2, 2)}
  np.testing.assert_array_equal(arrays.to_host(batch)['image'], image)


def test_a_batch_that_does_not_divide_says_what_to_change(mesh):
  with pytest.raises(errors.UserError, match=r'12 examples.*8 devices.*multiple of 8'):
    arrays.to_global({'image': np.zeros((12, 2))}, mesh)


def test_replicate_takes_numbers_arrays_and_keys(mesh):
  key = jax.random.key(7)
  tree = {'x': jnp.ones((3,), jnp.bfloat16), 'n': 3, 'd': np.float64(0.5), 'key': key}
  placed = arrays.replicate(tree, mesh)
  assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(placed))
  assert all(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(placed))
  assert placed['x'].dtype == jnp.bfloat16
  assert placed['n'].dtype == jnp.int32
  assert placed['d'].dtype == jnp.float32
  np.testing.assert_array_equal(jax.random.key_data(placed['key']), jax.random.key_data(key))
  again = arrays.replicate(placed, mesh)
  assert again['x'] is placed['x']


def test_jit_runs_over_the_global_batch_and_traces_once(mesh, one_device):
  def normalise(scale, image, step):
    return image / image.max(), {'loss/total': scale * image.mean() + step}

  image = np.arange(16, dtype=np.float32).reshape(16, 1)
  for devices in (mesh, one_device):
    run = compile.jit(
      normalise, devices, ins=(REPLICATED, BATCH, REPLICATED), outs=(BATCH, REPLICATED)
    )
    scale = arrays.replicate(np.float32(2), devices)
    for step in range(3):
      batch = arrays.to_global({'image': image}, devices)
      out, metrics = run(scale, batch['image'], step)
    assert run.traces == 1
    np.testing.assert_allclose(out, image / 15, rtol=1e-6)
    assert out.sharding == sharding.batch(devices)
    assert float(metrics['loss/total']) == 17.0
    assert metrics['loss/total'].sharding.is_fully_replicated
  run(scale, arrays.to_global({'image': image[:8]}, devices)['image'], 0)
  assert run.traces == 2


def test_a_layout_is_of_all_that_lies_below_it_in_the_arguments_tree(mesh):
  run = compile.jit(
    lambda whole, parts: (parts['x'], {'sum': whole['a'] + whole['b']}),
    mesh,
    ins=(REPLICATED, {'x': BATCH, 'scale': REPLICATED}),
    outs=(BATCH, REPLICATED),
  )
  one = np.ones((), np.float32)
  rows = arrays.to_global({'x': np.arange(8.0, dtype=np.float32)}, mesh)['x']
  x, sums = run({'a': one, 'b': one}, {'x': rows, 'scale': one})
  assert x.sharding == sharding.batch(mesh)
  assert sums['sum'] == 2 and sums['sum'].sharding.is_fully_replicated
  # Arrays that lie in another way are refused, not moved.
  with pytest.raises(ValueError, match=r'[Ss]harding'):
    run({'a': rows, 'b': rows}, {'x': rows, 'scale': one})


def test_jit_donates_only_what_it_is_told(mesh):
  add = compile.jit(lambda a, b: a + b, mesh, donate=(0,))
  a, b = arrays.replicate((np.ones(4, np.float32), np.ones(4, np.float32)), mesh)
  add(a, b)
  assert a.is_deleted()
  assert not b.is_deleted()


def test_mesh_has_one_automatic_axis(mesh):
  assert mesh.axis_names == ('data',)
  assert mesh.size == 8
  assert mesh.axis_types == (jax.sharding.AxisType.Auto,)
  assert mesh_lib.make_mesh(jax.devices()[:2]).size == 2


def test_compiled_programs_are_kept_on_disk(mesh, tmp_path):
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
    'jax_persistent_cache_min_entry_size_bytes',
  )
  before = {name: getattr(jax.config, name) for name in names}
  from jax.experimental.compilation_cache import compilation_cache

  try:
    compile.setup_cache(tmp_path / 'xla', min_seconds=0.0)
    compilation_cache.reset_cache()

    def program():
      return compile.jit(lambda x: jnp.sin(x) * 12345, mesh)(arrays.replicate(np.float32(1), mesh))

    program()
    kept = len(list((tmp_path / 'xla').glob('*-cache')))
    assert kept
    # The compiler's options are part of a program's name there.
    compile.compile_quickly(True)
    program()
    assert len(list((tmp_path / 'xla').glob('*-cache'))) == kept + 1
    compile.compile_quickly(False)
    program()
    assert len(list((tmp_path / 'xla').glob('*-cache'))) == kept + 1
  finally:
    compile.compile_quickly(False)
    for name, value in before.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
