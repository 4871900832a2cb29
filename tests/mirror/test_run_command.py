# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`run` runs a script as Python does; `doctor` says what is there and never shows a secret."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(script, text, *arguments, before=(), **environment):
    path = script.folder / "job.py"
    path.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "neptune_exporter", "run", *before, str(path), *arguments],
        cwd=script.folder,
        env={**script.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_is_main_with_its_own_arguments(script):
    (script.folder / "beside.py").write_text("value = 7\n")
    done = run(
        script,
        "import sys, pickle, beside\n"
        "class Mine: pass\n"
        "assert sys.modules['__main__'].Mine is Mine\n"
        "pickle.loads(pickle.dumps(Mine()))\n"
        "assert __name__ == '__main__' and __file__ == sys.argv[0] and beside.value == 7\n"
        "print(sys.argv[1:])\n",
        *("--target", "x", "-h"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['--target', 'x', '-h']"


@pytest.mark.parametrize(("text", "code"), [("raise SystemExit(7)", 7), ("raise ValueError('boom')", 1), ("", 0)])
def test_the_exit_code_is_the_scripts(script, text, code):
    done = run(script, text)
    assert done.returncode == code
    if "boom" in text:
        assert "ValueError: boom" in done.stderr
        assert "neptune_exporter" not in done.stderr  # no frames of ours


def test_signals_are_the_scripts_own(script):
    text = "import signal; assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL"
    assert run(script, text).returncode == 0


def test_no_such_script(script):
    done = subprocess.run(
        [sys.executable, "-m", "neptune_exporter", "run", "nothing.py"],
        cwd=script.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Hint:" in done.stderr


def test_the_sitecustomize_of_the_user_still_runs(script):
    folder = script.folder / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import builtins; builtins.from_the_user = True\n")
    done = run(
        script,
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import sys; assert from_the_user; '\n"
        "    'assert \"neptune_exporter.dual_logging\" in sys.modules'], check=True)\n",
        PYTHONPATH=str(folder),
    )
    assert done.returncode == 0, done.stderr


def test_doctor_names_what_is_missing_and_no_secret(script):
    secret = "a-key-that-nobody-may-see"
    out = script.command(
        "doctor", "--json", code=3,
        MLOP_PROJECT="p", MLOP_API_KEY=secret, MLOP_URL_API="http://127.0.0.1:9", NEPTUNE_API_TOKEN=secret,
    )  # fmt: skip
    assert secret not in out
    found = {finding["subject"]: finding for finding in json.loads(out)}
    assert found["pluto"]["grade"] == "bad"
    assert "does not answer" in found["pluto"]["text"]
    assert found["Neptune"]["grade"] == "bad"
    assert found["pluto"]["remedy"]
    assert found["neptune-scale"]["grade"] == "good"


def test_doctor_without_anything_is_content(script):
    del script.environment["MLFLOW_TRACKING_URI"]
    out = script.command("doctor")
    assert "Neptune only" in out or "no target is set" in out
