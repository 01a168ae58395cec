"""Text files are written completely or not at all."""

from __future__ import annotations

import os

import pytest

from jaxcvx.cli.artifacts import write_text
from jaxcvx.errors import FileFormatError


def test_text_is_replaced_completely(tmp_path):
    path = str(tmp_path / "report.json")
    write_text(path, "old")
    write_text(path, "new é\n")
    with open(path, encoding="utf-8") as stream:
        assert stream.read() == "new é\n"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_failure_keeps_the_old_file_and_says_why(tmp_path, monkeypatch):
    path = str(tmp_path / "report.json")
    write_text(path, "old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileFormatError, match="cannot write .*report.json: No space left"):
        write_text(path, "new")
    with open(path) as stream:
        assert stream.read() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_write_to_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="cannot write"):
        write_text(str(tmp_path / "missing" / "report.json"), "x")
