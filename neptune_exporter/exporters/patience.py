# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""How long a server is waited for, and how a request that fails is told from a server that is gone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from neptune_exporter.errors import InterruptedRunError, Problem, SourceError
from neptune_exporter.pace import Pace

FIRST_CONTACT_SECONDS = 30.0  # a server that has never answered is more likely misspelt than busy
ATTEMPTS = 5
_LONGEST_WAIT = 15.0


class ServerGoneError(SourceError):
    """The server does not answer any more: going on would only leave holes, so the command ends."""

    fatal = True


class RequestError(Exception):
    """One request failed for good; what it was about is lost for now, and nothing else.

    Attributes:
        message: what happened, in a sentence.
        status: the HTTP status, None without an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message, self.status = message, status

    def problem(self, attribute: str) -> Problem:
        """The failure as what is reported of an attribute."""
        refused = self.status is not None and 400 <= self.status < 500
        return Problem(self.message, attribute, "permanent" if refused else "retry")


class TryAgainError(Exception):
    """The request failed in a way that may pass.

    Attributes:
        message: what happened, in a sentence.
        after: how many seconds the server asks to be left alone; None if it asks for nothing.
        busy: whether the server is well and only has too much to do.
    """

    def __init__(self, message: str, *, after: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.message, self.after, self.busy = message, after, busy


class Patience:
    """What the requests to one server know of it together. Used from several threads.

    Args:
        seconds: how long a server that does not answer is tried again.
        server: its address, for messages.
        per_second: requests a second of the whole command, 0 for no limit.

    Attributes:
        pace: how many requests it gets.
    """

    def __init__(self, seconds: float, server: str, per_second: float = 0.0) -> None:
        self.pace = Pace(per_second)
        self._seconds = seconds
        self._server = server
        self._alive: float | None = None
        self._closed = threading.Event()

    def end(self) -> None:
        """Ends all waiting: whoever waits gets an `InterruptedRunError`."""
        self._closed.set()
        self.pace.end()

    def answered(self) -> None:
        """A request has succeeded."""
        self._alive = time.monotonic()

    def attempt(self, ask: Callable[[], bytes], *, attempts: int, probe: Callable[[], bool]) -> bytes:
        """Asks until there is an answer.

        Args:
            ask: does the request; raises `TryAgainError` where another attempt may help.
            attempts: after how many failures a request is given up, if the server answers others.
            probe: asks the server something that it has answered before.

        Raises:
            RequestError: the server answers, but not this request.
            ServerGoneError: it has answered nothing for too long.
        """
        started = time.monotonic()
        failures, rested = 0, 0.0
        while True:
            self._check()
            try:
                with self.in_line():
                    answer = ask()
            except TryAgainError as error:
                failures += not error.busy
                over = self._is_over(started, rested)
                if (failures >= attempts or over) and (self._since(started) or probe()):
                    raise RequestError(error.message) from error
                if over:
                    raise self._gone(error, started) from error
                self.rest(error, max(failures, 1))
                rested += min(error.after or 0.0, self._seconds)
            else:
                self.answered()
                return answer

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """For one request: begins when it is its turn, and learns from its end how many may be under way."""
        with self.pace.turn() as began:
            self._check()
            try:
                yield
            except TryAgainError as error:
                if error.busy:
                    self.pace.complained(began)
                raise
        self.pace.answered()

    def rest(self, error: TryAgainError, failures: int) -> None:
        """Waits before another attempt: as long as the server asks for, or longer after each failure."""
        if error.after is not None:
            self._sleep(min(error.after, self._seconds))
            return
        first = min(0.5, self._seconds / 60)
        self._sleep(min(_LONGEST_WAIT, first * 2 ** (failures - 1)) * random.uniform(0.5, 1.0))  # noqa: S311

    def _since(self, started: float) -> bool:
        return self._alive is not None and self._alive > started

    def _is_over(self, started: float, rested: float) -> bool:
        """Whether the server has been silent for longer than is waited, the rests that it asked for aside."""
        allowed = self._seconds if self._alive is not None else min(self._seconds, FIRST_CONTACT_SECONDS)
        return self._silence(started) - min(rested, 9 * allowed) > allowed

    def _silence(self, started: float) -> float:
        return time.monotonic() - max(started, self._alive or started)

    def _gone(self, error: TryAgainError, started: float) -> ServerGoneError:
        return ServerGoneError(
            f"{self._server} has not answered for {self._silence(started):.0f} seconds: {error.message}.",
            "What was finished is kept. Run the same command again when the server is back; "
            "--retry-timeout says how long to wait for it.",
        )

    def _sleep(self, seconds: float) -> None:
        self._closed.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self._closed.is_set():
            raise InterruptedRunError


def retry_after(value: str | None) -> float | None:
    """The seconds that a `Retry-After` header asks for, given as a number or as a date; None without one."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
