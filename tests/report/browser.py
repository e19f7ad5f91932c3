"""Opens a page in headless Chromium through its debugging pipe: for tests, and for screenshots."""

import base64
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_FLAGS = (
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-sync',
  '--remote-debugging-pipe',
)


def find() -> str | None:
  """The browser's program, where one is installed."""
  return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
  """A page of a browser that runs."""

  def __init__(self, to: int, back: int):
    self._to, self._back, self._number, self._rest = to, back, 0, b''
    self._session: str | None = None
    self.complaints: list[str] = []
    target = self._call('Target.createTarget', url='about:blank')['targetId']
    attached = self._call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self._call(f'{domain}.enable')

  def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._to, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._read()
      if answer.get('id') == self._number:
        assert 'error' not in answer, answer
        return answer['result']

  def _read(self) -> dict[str, Any]:
    while b'\0' not in self._rest:
      part = os.read(self._back, 1 << 20)
      assert part, 'the browser has ended'
      self._rest += part
    one, _, self._rest = self._rest.partition(b'\0')
    answer = json.loads(one)
    kind, said = answer.get('method'), answer.get('params', {})
    if kind in ('Runtime.exceptionThrown', 'Log.entryAdded', 'Runtime.consoleAPICalled'):
      self.complaints.append(json.dumps(said))
    return answer

  def open(self, path: pathlib.Path, width: int, height: int = 900) -> None:
    """Loads a file in a window of this size, in px, and waits until its pictures are there."""
    self._call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    self._call('Page.navigate', url=path.resolve().as_uri())
    while self.ask('document.readyState') != 'complete':
      pass

  def ask(self, expression: str) -> Any:
    """The value of an expression in the page."""
    found = self._call('Runtime.evaluate', expression=expression, returnByValue=True)
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def screenshot(self, path: pathlib.Path, *, whole: bool = False) -> None:
    """Writes what the window shows, or the whole page, as a PNG."""
    found = self._call('Page.captureScreenshot', captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(found['data']))

  def printed(self, path: pathlib.Path) -> None:
    """Writes the page as it is printed, as a PDF."""
    path.write_bytes(base64.b64decode(self._call('Page.printToPDF', printBackground=False)['data']))


@contextmanager
def opened(program: str) -> Iterator[Page]:
  """Starts a browser and ends it."""
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    (low, to), (back, high) = os.pipe(), os.pipe()
    # The browser reads from 3 and writes to 4, which must not be among the numbers here.
    read, write = (fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in (low, high))
    os.close(low)
    os.close(high)
    script = f'exec 3<&{read} 4>&{write}; exec "$@"'
    command = ['bash', '-c', script, 'bash', program, *_FLAGS, f'--user-data-dir={profile}']
    browser = subprocess.Popen(
      command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read)
    os.close(write)
    try:
      yield Page(to, back)
    finally:
      browser.terminate()
      browser.wait(20)
      os.close(to)
      os.close(back)
