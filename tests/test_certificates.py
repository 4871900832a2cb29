# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Servers whose certificate an authority of one's own has signed: refused, until it is named."""

from __future__ import annotations

import functools
import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from areas import PROJECT, floats, stage
from commands import neptune_exporter
from servers import http, mlflow_server, neptune2, neptune3, pluto, wandb
from servers.s3 import S3Server

from neptune_exporter.certificates import trust
from neptune_exporter.cli.main import main
from neptune_exporter.errors import UsageError
from neptune_exporter.model import RunRef

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that has signed itself, and its key: two PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests of neptune-exporter")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem", folder / "key.pem"


@pytest.fixture
def secured(certificate, monkeypatch):
    """All wire-level servers that are made from now on speak TLS."""

    class Secured(http.HttpServer):
        def __init__(self, *how, **options) -> None:
            super().__init__(*how, **options)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

        @property
        def url(self) -> str:
            return super().url.replace("http://", "https://")

    for module in (neptune2, neptune3, pluto, wandb):
        monkeypatch.setattr(module, "HttpServer", Secured)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What is set here ends with the test, what the program sets as well."""
    before = dict(os.environ)
    for name in VARIABLES:
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def refused(capsys) -> bool:
    said = capsys.readouterr().err
    return "is not trusted" in said and "--ca-bundle" in said and "Traceback" not in said


def area(tmp_path):
    stage(tmp_path, "RUN-1", floats(RunRef(PROJECT, "RUN-1"), "loss", [1.0, 2.0]))
    return ["--data-path", str(tmp_path / "data"), "--files-path", str(tmp_path / "files"), "--no-progress"]


def test_pluto(secured, certificate, tmp_path, capsys):
    where = area(tmp_path)
    with pluto.PlutoServer() as server:
        load = ["load", "--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", pluto.KEY, *where]
        assert main(load) != 0
        assert refused(capsys)
        assert not server.http.log
        assert main([*load, "--ca-bundle", str(certificate[0])]) == 0
        assert (
            main(["verify", "--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", pluto.KEY, *where]) == 0
        )


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"])
def test_any_of_the_usual_variables_counts_for_all_clients(secured, certificate, tmp_path, name):
    os.environ[name] = str(certificate[0])
    where = area(tmp_path)
    with pluto.PlutoServer() as server:
        assert (
            main(["load", "--loader", "pluto", "--pluto-host", server.url, "--pluto-api-key", pluto.KEY, *where]) == 0
        )


def test_neptune_3(secured, certificate, tmp_path, capsys):
    server = neptune3.Neptune3Server()
    server.store.add_run("team/demo", "run-1")
    server.http.start()
    try:
        os.environ["NEPTUNE_API_TOKEN"] = server.api_token
        export = [
            "export",
            "-p",
            "team/demo",
            "--no-progress",
            "--data-path",
            str(tmp_path / "d"),
            "--files-path",
            str(tmp_path / "f"),
        ]
        assert main(export) == 1
        assert refused(capsys)
        assert not server.http.log
        assert main([*export, "--ca-bundle", str(certificate[0])]) == 0
    finally:
        server.http.stop()


def test_neptune_2(secured, certificate, tmp_path, capsys):
    with neptune2.Neptune2Server() as server, server.environment():
        server.store.add_project("team/demo", "DEMO")
        export = ["export", "--exporter", "neptune2", "-p", "team/demo", "--no-progress"]
        export += ["--data-path", str(tmp_path / "d"), "--files-path", str(tmp_path / "f")]
        assert main(export) == 1
        assert refused(capsys)
        assert not server.http.log
        assert main([*export, "--ca-bundle", str(certificate[0])]) == 0


def refuses(*arguments: str) -> bool:
    """Whether a command in a process of its own says that it does not trust, and what to do."""
    said = neptune_exporter(*arguments)
    return said.code != 0 and "is not trusted" in said.err and "--ca-bundle" in said.err


def assert_trusted(certificate, target: list[str]) -> None:
    """With the certificate named, a load and its verification go through and say nothing."""
    for step in ("load", "verify"):
        done = neptune_exporter(step, *target, "--ca-bundle", certificate[0])
        assert (done.code, done.err) == (0, "")


def test_wandb(secured, certificate, tmp_path):
    """What is asked first is asked by us; points and files are sent by W&B's own process, written in Go."""
    where = area(tmp_path)
    with wandb.serving() as server:
        target = ["--loader", "wandb", "--wandb-base-url", server.url, "--wandb-api-key", wandb.API_KEY, *where]
        for how in ([], ["--dry-run"]):
            assert refuses("load", *target, *how)
        assert_trusted(certificate, target)
        assert len(server.runs.all()) == 1


def test_mlflow(certificate, tmp_path):
    (tmp_path / "server").mkdir()
    database = f"sqlite:///{tmp_path}/server/mlflow.db"
    where = area(tmp_path)
    with mlflow_server.serving(tmp_path / "server", database, certificate=certificate) as url:
        target = ["--loader", "mlflow", "--mlflow-tracking-uri", url, *where]
        assert refuses("load", *target)
        assert_trusted(certificate, target)


@pytest.mark.parametrize("name", ["", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_s3(certificate, tmp_path, monkeypatch, capsys, name):
    """For commands that ask nobody else, too; without one of the variables, it takes the option."""
    import werkzeug.serving

    from neptune_exporter.storage.objects.store import forget_connections

    chain, key = (str(path) for path in certificate)
    secured = functools.partial(werkzeug.serving.make_server, ssl_context=(chain, key))
    monkeypatch.setattr(werkzeug.serving, "make_server", secured)
    server = S3Server()
    try:
        os.environ.update(server.variables())
        os.environ["AWS_ENDPOINT_URL"] = url = server.address.replace("http://", "https://")
        where = ["--data-path", "s3://bucket/d", "--files-path", "s3://bucket/f", "--no-progress"]
        for command in ("summary", "verify"):
            if not name:
                forget_connections()
                assert main([command, *where]) == 1
                assert f"The certificate of {url} is not trusted." in (said := capsys.readouterr().err)
                assert "--ca-bundle" in said
                assert not server.log
            else:
                os.environ[name] = chain
            forget_connections()
            assert main([command, *where, *([] if name else ["--ca-bundle", chain])]) == 1
            assert "There is no bucket" in capsys.readouterr().err
            for variable in VARIABLES:
                os.environ.pop(variable, None)
            server.log.clear()
    finally:
        forget_connections()
        server.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "Cannot read the certificates"),
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAA\n", "no certificate"),
    ],
)
def test_files_that_are_none(tmp_path, content, said):
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        trust(str(bundle))
    assert main(["summary", *area(tmp_path)[:4], "--ca-bundle", str(bundle)]) == 2
    assert not any(name in os.environ for name in VARIABLES)


def test_what_is_set_for_one_client_is_left_as_it_is(certificate, tmp_path):
    os.environ["REQUESTS_CA_BUNDLE"], os.environ["AWS_CA_BUNDLE"] = str(certificate[0]), "of its own"
    trust()
    assert os.environ["SSL_CERT_FILE"] == str(certificate[0])
    assert os.environ["AWS_CA_BUNDLE"] == "of its own"
