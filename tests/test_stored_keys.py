# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Keys that a tracker's login has stored: found where they can be had without asking, and never asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STORE = """
import os, sys
class {name}:
    def get_password(self, service, user):
        {body}
def get_keyring():
    return {chosen}
"""


def looked_up(folder, body, *, name="Keyring", chosen=None, alternative=""):
    """What `stored_key` finds in a process that has this keyring package, and a terminal's worth of standard input."""
    package = folder / "keyring"
    package.mkdir()
    (package / "__init__.py").write_text(STORE.format(name=name, body=body, chosen=chosen or f"{name}()"))
    if alternative:
        (folder / "keyrings" / "alt").mkdir(parents=True)
        (folder / "keyrings" / "alt" / "file.py").write_text(alternative)
    code = "from neptune_exporter.stored_keys import PLUTO, stored_key; print(repr(stored_key(*PLUTO)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder)},
        input="typed by somebody\n" * 3,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("service", ["mlop", "pluto"])
def test_the_key_of_either_login_is_found(tmp_path, service):
    assert looked_up(tmp_path, f"return 'the-key' if (service, user) == ('{service}',) * 2 else None") == "'the-key'"


@pytest.mark.parametrize(
    "body",
    [
        "return None",
        "return ''",
        "raise RuntimeError('No recommended backend was available.')",
        "import getpass; return getpass.getpass('Password: ')",
        "return input('Password: ')",
        "return open('/dev/tty').readline()",
    ],
)
def test_nothing_is_found_and_nobody_is_asked(tmp_path, body):
    assert looked_up(tmp_path, body) == "''"


@pytest.mark.parametrize("name", ["EncryptedKeyring", "KWallet5"])
def test_a_store_that_would_ask_is_passed_by(tmp_path, name):
    assert looked_up(tmp_path, "return 'behind a dialogue'", name=name) == "''"


def test_of_a_chain_those_that_do_not_ask_are_looked_at(tmp_path):
    chain = "type('Chain', (), {'backends': [type('EncryptedFile', (Keyring,), {})(), Keyring()]})()"
    body = "return None if 'Encrypted' in type(self).__name__ else 'the-key'"
    assert looked_up(tmp_path, body, chosen=chain) == "'the-key'"


def test_the_plain_file_that_the_trackers_fall_back_to(tmp_path):
    plain = "class PlaintextKeyring:\n    def get_password(self, service, user): return 'in a file'\n"
    assert looked_up(tmp_path, "raise RuntimeError('no keyring')", alternative=plain) == "'in a file'"


def test_without_the_package_no_process_is_started(monkeypatch):
    from neptune_exporter import stored_keys

    stored_keys.stored_key.cache_clear()
    monkeypatch.setattr(stored_keys.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(stored_keys.subprocess, "run", lambda *a, **k: pytest.fail("looked"))
    assert stored_keys.stored_key("pluto") == ""
    stored_keys.stored_key.cache_clear()


def test_a_store_that_hangs_is_left_alone(monkeypatch, tmp_path):
    from neptune_exporter import stored_keys

    (tmp_path / "keyring.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(stored_keys, "SECONDS", 0.5)
    stored_keys.stored_key.cache_clear()
    assert stored_keys.stored_key("pluto") == ""
    stored_keys.stored_key.cache_clear()
