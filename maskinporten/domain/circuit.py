"""When to stop asking someone who does not answer, and when to ask again."""

from dataclasses import dataclass, replace
from typing import Final

TOLERANCE: Final = 5  # failures in a row before we stop asking
FIRST_PAUSE: Final = 1.0  # seconds, doubled for each trial that fails
MAX_PAUSE: Final = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Circuit:
    """Closed: everything is asked. Open: nothing is. After a pause: one trial decides.

    Times are seconds of any clock that only goes forward. What was begun before the circuit
    opened tells nothing about the trial: its outcome is passed over.
    """

    failures: int = 0  # in a row
    pause: float = FIRST_PAUSE  # seconds the next opening lasts
    ask_again_at: float | None = None  # None: closed
    trial: int = 0  # the number of the trial under way; 0: none
    trials: int = 0  # begun so far

    @property
    def is_open(self) -> bool:
        """Whether questions are held back."""
        return self.ask_again_at is not None

    def admits(self, now: float) -> bool:
        """Whether a question may be asked now."""
        return self.ask_again_at is None or (now >= self.ask_again_at and not self.trial)

    def admitted(self) -> "Circuit":
        """One question is asked. While open, it is the trial, numbered in `trial`."""
        if self.ask_again_at is None:
            return self
        return replace(self, trial=self.trials + 1, trials=self.trials + 1)

    def answered(self, trial: int) -> "Circuit":
        """A question was answered, whatever the answer was; `trial` as it was when asked."""
        if self.ask_again_at is None:
            return replace(self, failures=0)
        return Circuit(trials=self.trials) if trial and trial == self.trial else self

    def failed(self, now: float, trial: int, at_least: float = 0.0) -> "Circuit":
        """A question was not answered. `at_least`: seconds we were told to stay away."""
        if self.ask_again_at is not None and (not trial or trial != self.trial):
            return self
        failures = self.failures + 1
        if self.ask_again_at is None and failures < TOLERANCE and not at_least:
            return replace(self, failures=failures)
        pause = min(max(self.pause, at_least), MAX_PAUSE)
        return Circuit(failures, min(self.pause * 2, MAX_PAUSE), now + pause, 0, self.trials)
