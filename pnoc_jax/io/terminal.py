"""Makes any terminal fit for any text, and any text fit for a terminal."""

import io
import re
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TextIO

# Controls, what turns the direction of the text that follows, and halves of characters, which no
# file can hold; not the end of a line, nor a tab.
_CONTROLS = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]'
)


def visible(text: str) -> str:
  """The text with its control characters as escapes; a terminal would obey them.

  Ends of lines and tabs stay, and so does a return at the very beginning: a progress bar begins so.
  """
  begin = '\r' * text.startswith('\r')
  return begin + _CONTROLS.sub(lambda x: ascii(x[0])[1:-1], text[len(begin) :])


class Visible:
  """A stream that writes control characters as escapes; all else is the stream's own."""

  def __init__(self, stream: TextIO):
    """Keeps the stream."""
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes the text, with its control characters made visible."""
    self._stream.write(visible(text))
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Writes each of the lines as `write` does."""
    for line in lines:
      self.write(line)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def accept_all_text() -> None:
  """Lets standard output and errors take any name of a file, a class or an image.

  Letters that the terminal's encoding lacks are written as escapes: without it one name of a class
  in Chinese on a terminal that is not UTF-8 would end a run. So are control characters: a name that
  somebody else chose must not move the cursor, clear the screen or set the terminal's title.
  """
  for name in ('stdout', 'stderr'):
    stream: Any = getattr(sys, name)
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
      setattr(sys, name, Visible(stream))


def say_stopped() -> None:
  """Lets Ctrl-C end a command with a word in place of a traceback; its exit status stays."""
  if sys.excepthook is sys.__excepthook__:  # A debugger or a notebook has a hook of its own.
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
  if issubclass(kind, KeyboardInterrupt):
    print('stopped', file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, trace)
