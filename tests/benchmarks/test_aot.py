"""What compiled programs move and compute, read off their text; and the table of a tiny run."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import absent, aot, hlo
from pnoc_jax.data import info
from pnoc_jax.errors import UserError
from pnoc_jax.parallel import targets
from pnoc_jax.runs import forecast, imagined
from tests.configs import tiny

CPU, TPU = targets.parse('cpu:8'), targets.parse('v5e:2x2')

# A loop of seven turns that multiplies one slice of its weights; a sum over devices; cuDNN.
PROGRAM = """
HloModule jit_counted

%fused (p0: f32[7,4,4], p1: s32[]) -> f32[4,4] {
  %p0 = f32[7,4,4]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = f32[1,4,4]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,4,4}
  ROOT %flat = f32[4,4]{1,0} bitcast(%cut)
}

%body (c: (s32[], f32[4,4], f32[7,4,4])) -> (s32[], f32[4,4], f32[7,4,4]) {
  %c = (s32[], f32[4,4]{1,0}, f32[7,4,4]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[4,4]{1,0} get-tuple-element(%c), index=1
  %w = f32[7,4,4]{2,1,0} get-tuple-element(%c), index=2
  %slice_fusion.1 = f32[4,4]{1,0} fusion(%w, %i), kind=kLoop, calls=%fused
  %y = f32[4,4]{1,0} dot(%x, %slice_fusion.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (s32[], f32[4,4]{1,0}, f32[7,4,4]{2,1,0}) tuple(%i, %y, %w)
}

%cond (c: (s32[], f32[4,4], f32[7,4,4])) -> pred[] {
  %c = (s32[], f32[4,4]{1,0}, f32[7,4,4]{2,1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: (s32[], f32[4,4], f32[7,4,4]), b: bf16[2,8,8,16], k: bf16[3,3,16,32]) -> f32[4,4] {
  %a = (s32[], f32[4,4]{1,0}, f32[7,4,4]{2,1,0}) parameter(0)
  %b = bf16[2,8,8,16]{3,2,1,0} parameter(1)
  %k = bf16[3,3,16,32]{3,2,1,0} parameter(2)
  %conv = (bf16[2,8,8,32]{3,2,1,0}, u8[0]{0}) custom-call(%b, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(f)/transpose(jvp(f))/conv"}
  %loop = (s32[], f32[4,4]{1,0}, f32[7,4,4]{2,1,0}) while(%a), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %z = f32[4,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %sum = f32[4,4]{1,0} all-reduce(%z), replica_groups={{0,1}}, to_apply=%cond
}
"""  # noqa: E501


def test_a_loop_turns_a_slice_is_a_slice_and_a_sum_is_sent():
  found = hlo.traffic(PROGRAM, CPU)
  square = 4 * 4 * 4
  conv = 2 * (2 * 8 * 8 * 16 + 3 * 3 * 16 * 32 + 2 * 8 * 8 * 32)
  assert found.bytes == {
    '__cudnn$convForward': conv,
    'fusion slice_fusion': 7 * 2 * square + 7 * 4,
    'dot': 7 * 3 * square,
    'all-reduce': 2 * square,
  }
  assert found.backward == conv
  # Of 8 x 3 places of the window along a side, two lie outside.
  assert found.flop == 7 * 2 * 4**3 + 2 * 2 * (8 * 3 - 2) ** 2 * 16 * 32
  assert found.collectives == {'all-reduce': [1, square]} and found.link_bytes == 2 * square
  assert found.endless == 0


def test_a_tpu_pads_its_tiles_and_its_vector_memory_is_no_traffic():
  assert hlo.size('f32[1000,4]{1,0:T(8,128)}', tpu=True) == 1000 * 128 * 4
  assert hlo.size('f32[1000,4]{0,1:T(4,128)}', tpu=True) == 1024 * 4 * 4
  assert hlo.size('bf16[16,128]{1,0:T(8,128)(2,1)S(1)}', tpu=True) == 0
  assert hlo.size('(f32[3]{0}, pred[8]{0})') == 20


def test_flops_of_a_compiled_program_are_those_of_its_mathematics(mesh):
  x = jax.ShapeDtypeStruct((16, 24), jnp.float32)
  text = jax.jit(lambda x: jnp.tanh(x @ x.T)).lower(x).compile().as_text()
  assert hlo.traffic(text, CPU).flop in (2 * 16 * 16 * 24, 0)  # 0: a call of a library.


def test_mfu_counts_each_product_at_the_peak_of_its_precision():
  """A product of bfloat16 in the program is no reason to compare those of float32 with its peak."""
  h100 = targets.parse('h100:2')
  flop = 1e9
  facts = {'images': 8, 'calls': 1, 'together': 1, 'flop': flop}
  row = aot.judge(facts | {'at_peak': flop / h100.device.float32}, PROGRAM, {}, h100)
  alone = row['seconds'] + row['link_seconds']
  assert row['mfu'] == pytest.approx(100 * flop / h100.device.float32 / 2 / alone)


def test_a_run_has_a_row_a_program_and_goes_on_where_it_ended(tmp_path, capsys, monkeypatch):
  config, file = tiny.get_config(), tmp_path / 'rows.json'
  target = targets.parse('cpu:1')
  rows = aot.everything(config, target, out=str(file), only='priors')
  assert rows == json.loads(file.read_text()) and list(rows) == [
    'priors/scale 1',
    'priors/join',
  ]
  row = rows['priors/scale 1']
  assert row['status'] == 'ok' and row['calls'] == 4 and row['images'] == 8
  assert (
    row['flop'] > 0 and row['bytes'] > 0 and row['memory']['total'] > row['memory']['arguments']
  )
  assert row['images_per_s'] == pytest.approx(8 / (row['seconds'] + row['link_seconds']))
  assert row['collectives'] == {}
  monkeypatch.setattr(aot, 'look', lambda *_: pytest.fail('looked again'))
  assert aot.everything(config, target, out=str(file), only='priors') == rows
  assert 'priors/join' in capsys.readouterr().out


def test_an_estimate_writes_nothing(capsys):
  config = tiny.get_config()
  hours = aot.estimates(config, targets.parse('cpu:8'), only='random_walk')
  printed = capsys.readouterr().out
  assert hours > 0 and 'random_walk/scale 1' in printed and 'estimated from shapes' in printed


def test_what_is_not_here_is_imagined():
  dataset = info.DatasetInfo('x', tuple('abcde'), 'b', info.color_map(6))
  source = imagined.Imagined(dataset, 'train', 90, (375, 500))
  assert len(source) == len(source.ids) == 90 and source.size(3) == (375, 500)
  assert (source.labels.sum(1).min(), source.labels.sum(1).max()) == (1, 3)


def test_what_was_not_compiled_is_estimated(tmp_path, mesh):
  config = tiny.get_config()
  found = list(aot.programs(config, list(mesh.devices.flat), 'random_walk'))
  entry, calls = found[0][0], [call for _, call in found]
  guess = forecast.forecast(entry, config, calls, CPU, {})
  assert guess.seconds > 0 and guess.bytes is None and not guess.compiled
  row = {
    'status': 'ok',
    'settings': forecast.fingerprint(entry, config),
    'memory': {'total': 5},
    'images': 8,
    'together': 1,
    'seconds': 2.0,
    'link_seconds': 1.0,
  }
  rows = {forecast.key(entry, call): row for call in calls}
  known = forecast.forecast(entry, config, calls, CPU, rows)
  assert known == forecast.Forecast(seconds=2 * 4 * 3.0, bytes=5, compiled=True)
  config.random_walk.radius += 1  # Rows of other settings are out of date.
  assert not forecast.forecast(entry, config, calls, CPU, rows).compiled


def test_a_target_without_its_compiler_is_refused(monkeypatch):
  with pytest.raises(UserError, match='the doctor estimates the others'):
    absent.devices(targets.parse('a100:8'))
