import os
import tarfile

from pnoc_jax.io import archives


def test_an_archive_depends_on_names_and_contents_alone(tmp_path):
  packed = []
  for number, order in enumerate((('a', 'b'), ('b', 'a'))):
    files = {}
    for name in order:
      files[name] = tmp_path / f'{number}{name}'
      files[name].write_bytes(name.encode() * 1000)
      files[name].chmod(0o600 + number)
      os.utime(files[name], (number, number))
    path = tmp_path / str(number) / 'packed.tar.gz'
    archives.write_tar_gz(path, [(f'folder/{name}', file) for name, file in files.items()])
    packed.append(path.read_bytes())
  assert packed[0] == packed[1]
  with tarfile.open(path) as archive:
    assert archive.getnames() == ['folder/a', 'folder/b']
    assert archive.extractfile('folder/b').read() == b'b' * 1000
    assert archive.getmember('folder/a').uname == ''
