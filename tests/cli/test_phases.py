"""Lines on what is being done, counted compilations, and Ctrl-C as a wish to stop."""

from __future__ import annotations

import io
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxcvx.cli import phases
from jaxcvx.cli.phases import Compilations, Phases, stop_on_interrupt


def test_each_phase_has_a_line_with_its_seconds():
    stream = io.StringIO()
    shown = Phases("c", stream=stream)
    with shown.phase("first"):
        shown.state("gap 3 %")
    with shown.phase("second"):
        time.sleep(0.11)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("c: first: 0.0 s, gap 3 %") and lines[1] == "c: second: 0.1 s"
    assert list(shown.seconds) == ["first", "second"] and 0.1 < shown.seconds["second"] < 5


def test_a_long_phase_is_not_silent(monkeypatch):
    monkeypatch.setattr(phases, "SILENCE", 0.05)
    stream = io.StringIO()
    with Phases("c", stream=stream).phase("long"):
        time.sleep(0.4)
    assert stream.getvalue().count("c: ... long: 0.") >= 2
    assert threading.active_count() < 50


def test_quiet_says_nothing_and_a_failure_ends_the_thread(monkeypatch):
    monkeypatch.setattr(phases, "SILENCE", 0.05)
    stream = io.StringIO()
    quiet = Phases("c", quiet=True, stream=stream)
    before = threading.active_count()
    with pytest.raises(ValueError), quiet.phase("p"):
        time.sleep(0.12)
        raise ValueError
    assert stream.getvalue() == "" and threading.active_count() == before


def test_a_terminal_gets_a_moving_line():
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Phases("c", stream=stream).phase("p"):
        time.sleep(0.1)
    assert stream.getvalue().splitlines()[-1].endswith("c: p: 0.1 s")


def test_compilations_are_counted_while_open():
    def fresh(x):
        return jnp.sin(x) + 17.25

    with Compilations() as seen:
        jax.jit(fresh)(1.0).block_until_ready()
    count = seen.programs
    assert count >= 1 and seen.seconds > 0
    jax.jit(lambda x: fresh(x) * 3)(1.0)
    assert seen.programs == count


def test_the_first_interrupt_asks_and_the_second_insists():
    shown = Phases(stream=io.StringIO())
    handler = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt(shown) as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
    assert signal.getsignal(signal.SIGINT) is handler
    answers = []

    def elsewhere():
        with stop_on_interrupt(shown) as stopped:
            answers.append(stopped())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [False]
