"""The findings of a look at data before a run, and their report."""

import contextlib
import dataclasses
import enum
from collections.abc import Iterator

from pnoc_jax import errors


class Severity(enum.Enum):
  """How much a finding matters.

  Attributes:
    FACT: good to know.
    WARNING: a run is possible, and perhaps not what is wanted.
    FAULT: a run would stop, or would be worth nothing.
  """

  FACT = 'facts'
  WARNING = 'warnings'
  FAULT = 'faults'


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
  """Something that was found.

  Attributes:
    level: how much it matters.
    about: what it is about.
    what: a sentence.
  """

  level: Severity
  about: str
  what: str


_VERDICTS = ('nothing stands against a run', 'look at the warnings', 'a run would not work')


@dataclasses.dataclass
class Report:
  """All that was found.

  Attributes:
    findings: in the order in which they were found.
  """

  findings: list[Finding] = dataclasses.field(default_factory=list)

  def add(self, level: Severity, about: str, what: str) -> None:
    """Adds a finding."""
    self.findings.append(Finding(level, about, what))

  @contextlib.contextmanager
  def catch(self, about: str) -> Iterator[None]:
    """Turns a user's error inside of the context into faults."""
    try:
      yield
    except errors.UserError as error:
      self.add_error(about, error)

  def add_error(self, about: str, error: errors.UserError) -> None:
    """Adds the faults that an error names: each line below a heading, else the whole message.

    A fault that is there already, e.g. of a table that two splits share, is not added again.
    """
    first, *rest = str(error).splitlines()
    indented = [x.strip() for x in rest if x.startswith('  ')]
    told = {x.what for x in self.findings}
    for what in indented if first.endswith(':') and indented else [str(error)]:
      if what not in told:
        self.add(Severity.FAULT, about, what)

  def of(self, level: Severity) -> list[Finding]:
    """The findings of a level."""
    return [x for x in self.findings if x.level is level]

  @property
  def exit_code(self) -> int:
    """2 with faults, 1 with warnings, else 0."""
    return 2 if self.of(Severity.FAULT) else 1 if self.of(Severity.WARNING) else 0

  def text(self) -> str:
    """The summary: faults, warnings, facts, and a verdict."""
    lines = []
    for level in (Severity.FAULT, Severity.WARNING, Severity.FACT):
      found = self.of(level)
      if found:
        lines.append(f'{level.value} ({len(found)})')
        for x in found:
          first, *rest = f'{x.about}: {x.what}'.splitlines()
          lines += [f'  {first}', *(f'      {line}' for line in rest)]
        lines.append('')
    faults, warnings = len(self.of(Severity.FAULT)), len(self.of(Severity.WARNING))
    count = f'{faults} fault{"s" * (faults != 1)}, {warnings} warning{"s" * (warnings != 1)}'
    return '\n'.join([*lines, f'{count}: {_VERDICTS[self.exit_code]}'])
