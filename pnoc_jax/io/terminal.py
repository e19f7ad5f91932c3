"""Makes any terminal fit for any text."""

import io
import sys


def accept_all_text() -> None:
  """Lets standard output take names that its encoding lacks: they are written as escapes.

  Without it one name of a class in Chinese on a terminal that is not UTF-8 would end a run.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
