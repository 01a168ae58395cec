"""What a long command tells while it works: one line on stderr for each phase, with its seconds."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import jax

from jaxcvx.errors import require_extra

SILENCE = 10.0  # longest time in seconds without a line


class Compilations:
    """The programs that XLA compiles while it is open: their number, and the seconds of tracing and compiling."""

    def __init__(self) -> None:
        self.programs, self.seconds = 0, 0.0

    def __enter__(self) -> Compilations:
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration_secs
            self.programs += event.endswith("backend_compile_duration")


class Phases:
    """The phases of a command. On a terminal a line moves; elsewhere a line appears every ten seconds.

    Attributes:
      seconds: the seconds of every phase that has ended, by its name.
    """

    def __init__(self, command: str = "jaxcvx", quiet: bool = False, stream: TextIO | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._stream = sys.stderr if stream is None else stream
        self._command, self._quiet = command, quiet
        self._state, self._told = "", 0.0

    def say(self, text: str) -> None:
        """Write a line."""
        self._told = time.perf_counter()
        if not self._quiet:
            print(f"{self._command}: {text}", file=self._stream, flush=True)

    def state(self, text: str) -> None:
        """What the phase has reached; it is in the next line."""
        self._state = text

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what is done in the block, and write how long it took."""
        began, self._state, self._told = time.perf_counter(), "", time.perf_counter()
        watch = self._moving if self._stream.isatty() and not self._quiet else self._repeated
        with watch(name, began):
            yield
        self.seconds[name] = time.perf_counter() - began
        self.say(self._line(name, self.seconds[name]))

    def _line(self, name: str, seconds: float) -> str:
        return f"{name}: {seconds:.1f} s" + (f", {self._state}" if self._state else "")

    @contextlib.contextmanager
    def _repeated(self, name: str, began: float) -> Iterator[None]:
        """Lines from a thread, since one call of the library may take minutes."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(max(0.1, self._told + SILENCE - time.perf_counter())):
                if time.perf_counter() - self._told >= SILENCE:
                    self.say("... " + self._line(name, time.perf_counter() - began))

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def _moving(self, name: str, began: float) -> Iterator[None]:
        live: Any = require_extra("rich.live", "cli")
        spinner: Any = require_extra("rich.spinner", "cli")
        console: Any = require_extra("rich.console", "cli").Console(file=self._stream)  # type: ignore[attr-defined]
        turning = spinner.Spinner("dots")

        def frame() -> Any:
            turning.update(text=self._line(name, time.perf_counter() - began))
            return turning

        with live.Live(get_renderable=frame, console=console, transient=True):
            yield


@contextlib.contextmanager
def stop_on_interrupt(phases: Phases) -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C makes the function that it yields return True. The second one interrupts.

    Signals reach the main thread alone; elsewhere the function always returns False.
    """
    pressed = threading.Event()

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        phases.say("the proof ends at the next step; press Ctrl-C again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
