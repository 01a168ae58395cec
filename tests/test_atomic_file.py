"""Files are written completely or not at all."""

from __future__ import annotations

import os

import pytest

from jaxcvx.atomic_file import remove_unfinished, replacing, write_text
from jaxcvx.errors import FileFormatError


def test_the_file_is_replaced_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with replacing(link) as stream:
        stream.write(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(FileFormatError, match="cannot write .*missing"), replacing(tmp_path / "missing" / "a"):
        pass


def test_only_unfinished_files_of_this_path_are_removed(tmp_path):
    path = tmp_path / "a.npz"
    left, other = tmp_path / f"a.npz.{'0' * 16}.tmp", tmp_path / f"b.npz.{'0' * 16}.tmp"
    mine = tmp_path / "a.npz.notes.tmp"
    for file in (left, other, mine, path):
        file.write_bytes(b"")
    remove_unfinished(path)
    assert sorted(tmp_path.iterdir()) == sorted([other, mine, path])


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
