# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""No secret in anything that is shown, written or visible to other users of the machine, and no code from data.

The real commands run in processes of their own, at their most talkative, against servers that succeed, fail, and say
the secrets that they were given aloud.
"""

from __future__ import annotations

import ast
import base64
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from areas import PROJECT, TIME_MS, floats, stage
from servers import pluto, wandb
from servers.http import Fault, HttpServer, Reply
from servers.neptune2 import Neptune2Server
from servers.neptune3 import Neptune3Server

from neptune_exporter import plugins, secrets
from neptune_exporter.cli import main as program
from neptune_exporter.errors import ExporterError, Problem
from neptune_exporter.model import RunRef
from neptune_exporter.secrets import MaskedFormatter, keep_secret, masked

PACKAGE = Path(secrets.__file__).parent
MARK = "MARKED5ECRET"
NEPTUNE_KEY = f"{MARK}-neptune-key"
OTHERS = {
    "WANDB_API_KEY": f"{MARK}{'w' * 28}",
    "PLUTO_API_KEY": f"plt_{MARK}{'p' * 28}",
    "MLFLOW_TRACKING_TOKEN": f"{MARK}-mlflow-token",
    "MLFLOW_TRACKING_PASSWORD": f"{MARK}-mlflow-password",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-aws-secret",
}

# Runs commands one after the other in one process; their exit codes are its last line.
DRIVER = """
import json, sys
from neptune_exporter.cli.main import main
from neptune_exporter.secrets import mask_tracebacks
mask_tracebacks()
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print("codes", json.dumps(codes))
"""


def token_for(url: str) -> str:
    content = {"api_address": url, "api_url": url, "api_key": NEPTUNE_KEY}
    return base64.b64encode(json.dumps(content).encode()).decode()


@pytest.fixture(autouse=True)
def marked(monkeypatch):
    """The servers take what the marked secrets are."""
    monkeypatch.setattr(Neptune3Server, "api_token", property(lambda self: token_for(self.url)))
    monkeypatch.setattr(Neptune2Server, "api_token", property(lambda self: token_for(self.http.url)))
    monkeypatch.setattr(pluto, "KEY", OTHERS["PLUTO_API_KEY"])
    monkeypatch.setattr(wandb, "API_KEY", OTHERS["WANDB_API_KEY"])


class Watch:
    """The command lines of a process and all below it, looked at until it ends."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.seen: set[str] = set()
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            waiting = [self._process.pid]
            while waiting:
                pid = waiting.pop()
                try:
                    self.seen.add(
                        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    )
                    for task in Path(f"/proc/{pid}/task").iterdir():
                        waiting += [int(child) for child in (task / "children").read_text().split()]
                except OSError:
                    continue


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold a secret, also as a token that says it."""
    marks = [MARK.encode(), *(base64.b64encode(b" " * n + MARK.encode())[4:12] for n in range(3))]
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(mark in path.read_bytes() for mark in marks)
    ]


class Shell:
    """Where commands run, with everything that they say and write in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            **OTHERS,
            "PYTHONPATH": str(PACKAGE.parent),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "WANDB_DIR": str(folder),
            "WANDB_CONFIG_DIR": str(folder / "wandb-config"),
            "WANDB_CACHE_DIR": str(folder / "wandb-cache"),
            "WANDB_DATA_DIR": str(folder / "wandb-data"),
            "WANDB_ERROR_REPORTING": "false",
            "NEPTUNE_LOGGER_LEVEL": "debug",
            "MLFLOW_LOGGING_LEVEL": "DEBUG",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "OAUTHLIB_INSECURE_TRANSPORT": "1",
        }
        (folder / "tmp").mkdir()

    def run(self, command: list[str], **environment: str) -> str:
        """Runs a process, and holds that nothing secret came out of it. Returns what it said."""
        given = {**self.environment, **environment}
        process = subprocess.Popen(
            command, cwd=self.folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        watch = Watch(process)
        try:
            said, _ = process.communicate(timeout=240)
        finally:
            watch.stop()
        assert MARK not in said, said[max(said.find(MARK) - 500, 0) : said.find(MARK) + 200]
        assert watch.seen
        assert not [
            line for line in watch.seen if MARK in line or any(v in line for v in environment.values() if MARK in v)
        ]
        assert leaks(self.folder) == []
        return said

    def commands(self, *commands: list[str], **environment: str) -> tuple[list[int], str]:
        """Runs our commands, talkative; their exit codes, and all that was said."""
        more = ["-v", "--log-file", "log.txt", "--no-progress"]
        said = self.run([sys.executable, "-c", DRIVER, json.dumps([[*c, *more] for c in commands])], **environment)
        assert "Traceback" not in said.replace("INFO neptune_exporter.cli.main: traceback\nTraceback", "")
        return json.loads(said.rpartition("codes ")[2]), said


@pytest.fixture
def shell(tmp_path) -> Shell:
    return Shell(tmp_path)


def told(server: HttpServer, match: str, *secrets_of_it: str, status: int = 400, times: int | None = None) -> None:
    """From now on the server says aloud what it was given."""
    words = " ".join(secrets_of_it)
    body = json.dumps({"message": words, "title": words, "error": words, "errors": [{"message": words}]}).encode()
    server.faults.append(Fault(match, status=status, body=body, times=times))


def test_neptune_3_and_pluto(shell):
    neptune = Neptune3Server()
    run = neptune.store.add_run("team/demo", "run-1")
    run.set("lr", "float", 0.1)
    times = np.array([TIME_MS, TIME_MS + 1])
    run.series("loss", "floatSeries").extend(np.array([0.0, 1.0]), times, np.array([0.5, 0.25]))
    neptune.store.touch(run)
    neptune.http.start()
    token = neptune.api_token
    export = ["export", "-p", "team/demo", "--retry-timeout", "0", "--error-report-file", "errors.jsonl"]
    verify = ["verify", "--read-data", "--html", "report.html"]
    try:
        with pluto.PlutoServer() as server:
            load = ["load", "--loader", "pluto", "--pluto-host", server.url]
            codes, said = shell.commands(
                export, [*verify, "--exporter", "neptune3"], load,
                [*verify, "--loader", "pluto", "--pluto-host", server.url],
                ["summary", "--json", "--html", "summary.html"], NEPTUNE_API_TOKEN=token,
            )  # fmt: skip
            assert codes == [0] * 5, said[-6000:]
            told(neptune.http, "series/float", token, NEPTUNE_KEY, f"Bearer {MARK}-of-the-session")
            codes, said = shell.commands(
                [*export, "--overwrite"], [*verify, "--exporter", "neptune3"], NEPTUNE_API_TOKEN=token
            )
            assert codes[0] == 3
            assert "***" in said
            told(server.http, "api/runs", OTHERS["PLUTO_API_KEY"])
            codes, said = shell.commands(
                [*load, "--name-prefix", "x"], [*verify, "--loader", "pluto", "--pluto-host", server.url]
            )
            assert set(codes) & {1, 3}
            told(neptune.http, "oauth-token", token, status=401)
            codes, _ = shell.commands(export, NEPTUNE_API_TOKEN=token)
            assert codes == [1]
    finally:
        neptune.http.stop()


@pytest.mark.long
def test_neptune_2_and_mlflow(shell):
    echo = HttpServer(
        lambda request: Reply.json(
            {"error_code": "BAD_REQUEST", "message": request.headers.get("authorization", "")}, 400
        )
    )
    echo.start()
    with Neptune2Server() as server:
        server.store.add_project("team/demo", "DEMO")
        token = server.api_token
        source = ["--exporter", "neptune2", "-p", "team/demo", "--retry-timeout", "1"]
        stage(shell.folder / "exports", "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [1.0]))
        mlflow = ["load", "--mlflow-tracking-uri"]
        try:
            address = echo.url.replace("http://", f"http://user:{MARK}-in-the-address@")
            codes, said = shell.commands(
                ["export", *source], ["export-models", *source], [*mlflow, "sqlite:///mlflow.db"],
                ["verify", "--loader", "mlflow", "--mlflow-tracking-uri", "sqlite:///mlflow.db", "--html", "v.html"],
                [*mlflow, echo.url], ["load"], NEPTUNE_API_TOKEN=token, MLFLOW_TRACKING_URI=address,
            )  # fmt: skip
            assert codes[:4] == [0] * 4, said[-3000:]
            assert not {0} & set(codes[4:])
            told(server.http, "leaderboard", token, NEPTUNE_KEY)
            codes, _ = shell.commands(["export", *source], ["export-models", *source], NEPTUNE_API_TOKEN=token)
            assert not {0} & set(codes)
            server.http.faults.clear()
            server.revoke()
            codes, _ = shell.commands(["export", *source], NEPTUNE_API_TOKEN=token)
            assert codes == [1]
        finally:
            echo.stop()


def test_wandb(shell):
    stage(shell.folder / "exports", "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [1.0, 2.0]))
    with wandb.serving() as server:
        where = ["--loader", "wandb", "--wandb-base-url", server.url, "--wandb-entity", wandb.ENTITY]
        codes, said = shell.commands(["load", *where], ["verify", *where, "--html", "v.html"])
        assert codes == [0, 0], said[-3000:]
        told(server.http, "graphql", OTHERS["WANDB_API_KEY"], status=400)
        codes, _ = shell.commands(["load", *where, "--name-prefix", "x"], ["verify", *where])
        assert not {0} & set(codes)


SCRIPT = """
from neptune_scale import Run
with Run(project="team/demo", run_id="r", mode="offline", log_directory="neptune",
         enable_console_log_capture=False, source_tracking_config=None) as run:
    for step in range(5):
        run.log_metrics({"loss": 0.5}, step=step)
"""


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_dual_logging(shell, outcome):
    (shell.folder / "train.py").write_text(SCRIPT)
    with pluto.PlutoServer() as server:
        if outcome == "failure":
            told(server.http, "api/runs", OTHERS["PLUTO_API_KEY"], f"Bearer {OTHERS['PLUTO_API_KEY']}")
        settings = {"NEPTUNE_EXPORTER_TARGET": "pluto", "PLUTO_HOST": server.url, "NEPTUNE_EXPORTER_SPOOL": "spool"}
        settings["NEPTUNE_EXPORTER_LINGER_SECONDS"] = "0"
        run = [sys.executable, "-m", "neptune_exporter", "run", "train.py"]
        shell.run(run, NEPTUNE_API_TOKEN=token_for("http://127.0.0.1:9"), **settings)
        codes, _ = shell.commands(["replay"], **settings)
        assert server.http.log
        if outcome == "success":
            assert codes == [0]
        shell.run([sys.executable, "-m", "neptune_exporter", "doctor", "--json"], **settings)


# --- how that is done


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())


def test_everything_that_becomes_a_report_masks_itself(known):
    keep_secret(f" {MARK}\n")
    for text in (
        str(ExporterError(f"x {MARK}")), ExporterError("x", MARK).hint, Problem(MARK).message,
        json.dumps(Problem(MARK).to_json()), repr(ExporterError(MARK, MARK)),
    ):  # fmt: skip
        assert MARK not in text
        assert "***" in text


def test_a_token_is_known_with_the_key_in_it(known):
    keep_secret(token_for("https://neptune.example"))
    assert masked(f"key {NEPTUNE_KEY}") == "key ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pa/ss@host/db", "postgresql://me:pa/ss@host/db"),  # no such address: not a password
        ("postgresql://me:pass@host/db and http://k@h", "postgresql://***@host/db and http://***@h"),
        ("GET /x?X-Amz-Signature=abc&y=1&sig=d%2F HTTP", "GET /x?X-Amz-Signature=***&y=1&sig=*** HTTP"),
        ("Authorization: bearer abcdefghij1", "Authorization: bearer ***"),
        ("a@b.example, https://host/a@b?step=1", "a@b.example, https://host/a@b?step=1"),
        ("basic training of tokens", "basic training of tokens"),
    ],
)
def test_what_looks_like_a_credential_is_masked(known, text, expected):
    assert masked(text) == expected


def test_short_values_mask_nothing(known):
    keep_secret("a")
    keep_secret("")
    assert masked("a banana") == "a banana"


def test_a_password_that_is_a_word_masks_no_other_words(known):
    keep_secret("postgres")
    assert masked("postgresql:///db refuses the password postgres") == "postgresql:///db refuses the password ***"


def test_the_log_masks_tracebacks(known):
    keep_secret(MARK)
    with pytest.raises(ValueError) as error:
        int(f"{MARK} is wrong")
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%s", (MARK,), (error.type, error.value, error.tb))
    text = MaskedFormatter().format(record)
    assert "Traceback" in text
    assert MARK not in text


def test_a_traceback_that_ends_the_process_is_masked(tmp_path):
    code = "from neptune_exporter.secrets import mask_tracebacks; mask_tracebacks()\n"
    code += "import os\nraise ValueError(os.environ['WANDB_API_KEY'])"
    given = {**os.environ, **OTHERS}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False)
    assert "ValueError: ***" in done.stderr
    assert MARK not in done.stderr


def test_the_line_to_type_again_does_not_repeat_the_token(known, monkeypatch, capsys, tmp_path):
    def interrupted(*_args, **_how):
        raise KeyboardInterrupt

    monkeypatch.setattr("neptune_exporter.export.export", interrupted)
    places = ["--data-path", str(tmp_path / "d"), "--files-path", str(tmp_path / "f")]
    assert program.main(["export", "--api-token", token_for("http://127.0.0.1:9"), *places]) == 130
    said = capsys.readouterr().err
    assert "--api-token" in said
    assert MARK not in said
    assert token_for("http://127.0.0.1:9") not in said


def test_options_of_secrets_say_so():
    for group in (plugins.EXPORTERS, plugins.LOADERS):
        for name in plugins.available(group):
            for field in plugins.find(group, name).options.__dataclass_fields__.values():
                if any(word in field.name for word in ("token", "key", "password", "secret")):
                    assert field.metadata["secret"], f"{name}: {field.name}"


# --- no code from data, and no more rights than the user gives

FORBIDDEN = {
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "cPickle.loads",
        "dill.loads",
        "cloudpickle.loads",
        "joblib.load",
    ),
    *(
        "marshal.load",
        "marshal.loads",
        "shelve.open",
        "torch.load",
        "yaml.load",
        "yaml.unsafe_load",
        "numpy.load",
        "np.load",
    ),
    *("pandas.read_pickle", "pd.read_pickle", "eval", "exec", "compile", "os.system", "os.popen"),
}
TASKS_OF_OUR_OWN = "cluster.py"  # Dask's workers are sent them pickled by our own client, as all of Dask is
CLIENTS_OWN = {"mirror/startup/sitecustomize.py", "mirror/script.py"}  # they run the user's own script, as Python does


def called(node: ast.Call) -> str:
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_or_evaluated(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    if str(path.relative_to(PACKAGE)) == TASKS_OF_OUR_OWN:
        imported.discard("pickle")
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    if str(path.relative_to(PACKAGE)) in {*CLIENTS_OWN, TASKS_OF_OUR_OWN}:
        return
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [ast.unparse(node) for node in calls if called(node) in FORBIDDEN]
    shells = [k for node in calls for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False"]
    assert not shells
    unverified = [
        k
        for node in calls
        for k in node.keywords
        if k.arg in ("verify", "verify_ssl") and ast.unparse(k.value) == "False"
    ]
    assert not unverified, "certificates are always checked"


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_have_the_rights_that_the_user_gives(tmp_path, mask, file_mode, folder_mode):
    before = os.umask(mask)
    try:
        stage(tmp_path, "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [1.0]), files={"a/model": b"x"})
        arguments = ["--data-path", str(tmp_path / "data"), "--files-path", str(tmp_path / "files")]
        more = ["--html", str(tmp_path / "v.html"), "--log-file", str(tmp_path / "log")]
        assert program.main(["verify", *more, *arguments]) == 0
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (folder_mode if path.is_dir() else file_mode), path
