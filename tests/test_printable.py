# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What is printed, whatever the names in an archive are and whatever the terminal can show."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from neptune_exporter.printable import json_text, printable
from neptune_exporter.secrets import MaskedFormatter

ANY = "".join(map(chr, range(0x250))) + "\u061c\u200e\u202a\u202e\u2066\u2069損\U0001f600\udfff\ud800"


def test_what_is_harmless_stays_as_it_is():
    text = "loss/träin 損失 \U0001f600\t1\n2 \u200d"
    assert printable(text) == text
    assert json.loads(json_text(text)) == text
    assert "損失 \U0001f600" in json_text(text)


def test_what_a_terminal_obeys_stands_as_its_escape():
    assert printable("a\x1b[2Jb\rc\x7f\x9b\u202e\ud800") == "a\\x1b[2Jb\\x0dc\\x7f\\x9b\\u202e\\ud800"


@pytest.mark.parametrize("encoding", ["utf-8", "utf8", "UTF_8", "ascii", "cp1252", "latin-1"])
def test_everything_can_be_encoded_and_json_stays_what_it_was(encoding):
    assert printable(ANY, encoding).encode(encoding)
    text = json_text({ANY: [ANY, 1.5, None]}, indent=1, encoding=encoding)
    text.encode(encoding)
    assert json.loads(text) == {ANY: [ANY, 1.5, None]}
    assert not set(text) & set("\x1b\x7f\x9b\u202e\ud800")


def test_the_log_likewise():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "run %s", ("a\x1b[2Jb",), None)
    assert MaskedFormatter().format(record) == "run a\\x1b[2Jb"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_knows_few_characters(encoding, tmp_path):
    """Neither a result nor an error ends in a traceback because of it."""
    command = [sys.executable, "-m", "neptune_exporter", "summary", "--data-path", str(tmp_path / "損失\U0001f600")]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr
    assert rb"\u640d\u5931\U0001f600" in done.stderr
