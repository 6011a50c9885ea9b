"""A check is a line: whether it went well, what was found, and if it went wrong what to do."""

from collections.abc import Callable
from typing import Any, NamedTuple

from evqgan.core.errors import InputError, first_line
from evqgan.core.progress import heartbeat, say

OK, WARNING, FAIL, LEFT_OUT = "ok", "warning", "FAIL", "-"


class Check(NamedTuple):
    """What one check found."""

    name: str
    state: str  # OK, WARNING, FAIL, or LEFT_OUT where it could not be checked
    text: str

    def line(self) -> str:
        """Return the line that is printed."""
        return f"{self.state:9s}{self.name:19s}{self.text}"


class Wrong(Exception):
    """What a check found wrong, with what to do about it, in one line."""


class Doubtful(Exception):
    """What a check found that may be meant so, in one line."""


class NotYet(Exception):
    """Why something cannot be checked before it is first used, in one line."""


class Report:
    """The checks so far."""

    def __init__(self, held: bool = False) -> None:
        """Print checks as they are done; held: only from `speak` on, which says which ones."""
        self.checks: list[Check] = []
        self.held, self.quiet = held, False

    def speak(self, quiet: bool) -> None:
        """Print what was held back, and what follows; if `quiet` that alone which failed."""
        held, self.held, self.quiet = self.held, False, quiet
        for check in self.checks if held else ():
            self._print(check)

    def run(self, name: str, check: Callable[[], str | None], needs: Any = True) -> bool:
        """Run a check and print its line. Return whether it did not fail.

        check: returns what it found in one line, None where there was nothing to be looked at; it
          raises Wrong or InputError for what is wrong, Doubtful for what may be, NotYet where it
          cannot know.
        needs: false where what the check looks at could not be made: it is left out.
        """
        if not needs:
            return self._add(Check(name, LEFT_OUT, "not checked: see what failed above"), False)
        try:
            with heartbeat(f"checking {name}"):
                found = check()
        except (Wrong, InputError) as error:
            return self._add(Check(name, FAIL, " ".join(str(error).split())), False)
        except NotYet as error:
            return self._add(Check(name, LEFT_OUT, str(error)), True)
        except Doubtful as error:
            return self._add(Check(name, WARNING, " ".join(str(error).split())), True)
        except Exception as error:  # of a broken installation: of all kinds
            what = f"{type(error).__name__}: {first_line(error)}"
            if isinstance(error, ImportError):
                what += ": install it again, pip install --force-reinstall -r requirements.txt"
            return self._add(Check(name, FAIL, what), False)
        return found is None or self._add(Check(name, OK, found), True)

    def _add(self, check: Check, result: bool) -> bool:
        self.checks.append(check)
        self._print(check)
        return result

    def _print(self, check: Check) -> None:
        if not self.held and (not self.quiet or check.state == FAIL):
            say(check.line())

    def failed(self) -> list[str]:
        """Return the names of the checks that failed."""
        return [check.name for check in self.checks if check.state == FAIL]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": "doctor",
            "failed": self.failed(),
            "checks": [check._asdict() for check in self.checks],
        }
