# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Code that fetches its models keeps working when Neptune is gone: MLflow, S3 and a staging area."""

from __future__ import annotations

import os

import pytest
from registry_state import PROJECT, keys, tree, write_tree

from neptune_exporter.cli.main import main
from neptune_exporter.errors import ExporterError, SourceError, UsageError
from neptune_exporter.registry import open_model_version
from neptune_exporter.registry.transfer import MissingAttributeError, UnfinishedUploadError

TREE = {
    "weights.bin": os.urandom(2000),
    "nested/ключ ☃.txt": "zażółć".encode(),
    "nested/empty": b"",
    "a+b (1).txt": b"1",
}
CONFIG = {"layers": 3, "name": "ü"}


@pytest.fixture
def places(version, server, tmp_path, s3_server, monkeypatch, s3):
    """A model version with files in both storages, exported, loaded, and then Neptune is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S3_ENDPOINT_URL", s3_server)
    folder = write_tree(tmp_path / "up", TREE)
    version.upload_directory_to_model_version(folder, "model/in s3", use_s3=True)
    version.upload_directory_to_model_version(folder, "model/in neptune", use_s3=False)
    version.upload_config_to_model_version(CONFIG, "model/config", use_s3=False)
    version.upload_config_to_model_version(CONFIG, "model/config in s3", use_s3=True)
    version["set"].upload_files(str(folder), wait=True)
    version.stop()
    staging = ["--data-path", "exports/model_data", "--files-path", "exports/model_files", "--no-progress"]
    assert main(["export-models", "-p", PROJECT, *staging]) == 0
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert main(["load-models", "--mlflow-tracking-uri", uri, *staging]) == 0
    server.http.stop()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return tmp_path


@pytest.mark.parametrize("backend", ["mlflow", "staging", "s3"])
def test_the_same_files_by_the_same_methods(places, backend):
    opened = open_model_version(with_id="DEMO-MOD-1", project=PROJECT, backend=backend, mode="read-only", api_token="x")
    with opened:
        opened.download_directory_from_model_version(places / "down", "model/in s3")
        assert tree(places / "down") == TREE
        assert opened.download_config_from_model_version("model/config in s3") == CONFIG
        opened.download_file_from_model_version("model/in s3/weights.bin", places / "w.bin")
        assert (places / "w.bin").read_bytes() == TREE["weights.bin"]
        with pytest.raises(FileExistsError):
            opened.download_file_from_model_version("model/in s3/weights.bin", places / "w.bin")
        with pytest.raises(MissingAttributeError, match="no file model/none"):
            opened.download_config_from_model_version("model/none")
        if backend == "s3":  # which never had the rest
            with pytest.raises(MissingAttributeError):
                opened.download_config_from_model_version("model/config")
            return
        assert opened.download_config_from_model_version("model/config") == CONFIG
        opened.download_directory_from_model_version(places / "all", "model")
        assert {name for name in tree(places / "all") if name.startswith("in neptune/")} == {
            f"in neptune/{name}" for name in TREE
        }
        opened.download_directory_from_model_version(places / "set", "set")
        assert sorted(tree(places / "set").values()) == sorted(TREE.values())


@pytest.mark.parametrize("backend", ["mlflow", "s3"])
def test_uploads(places, backend):
    opened = open_model_version(with_id="DEMO-MOD-1", project=PROJECT, backend=backend)
    opened.upload_config_to_model_version({"new": 1}, "later/config")
    opened.upload_directory_to_model_version(places / "up", "later/ключ: 50%?/files", use_s3=True)
    again = open_model_version("DEMO-MOD-1", project=PROJECT, backend=backend)
    assert again.download_config_from_model_version("later/config") == {"new": 1}
    again.download_directory_from_model_version(places / "down", "later/ключ: 50%?/files")
    assert tree(places / "down") == TREE
    # What was there may be replaced, and what is replaced in one place is not in another.
    again.upload_config_to_model_version({"replaced": True}, "model/config in s3")
    assert opened.download_config_from_model_version("model/config in s3") == {"replaced": True}
    staged = open_model_version("DEMO-MOD-1", project=PROJECT, backend="staging")
    assert staged.download_config_from_model_version("model/config in s3") == CONFIG
    with pytest.raises(UsageError, match="cannot both be"):
        opened.upload_config_to_model_version({}, "model/config in s3/below")
    read_only = open_model_version("DEMO-MOD-1", project=PROJECT, backend=backend, mode="read-only")
    with pytest.raises(UsageError, match="read-only"):
        read_only.upload_config_to_model_version({}, "c")


@pytest.mark.parametrize("backend", ["mlflow", "s3"])
def test_an_upload_that_fails_half_way_is_not_complete(places, backend, monkeypatch):
    opened = open_model_version("DEMO-MOD-1", project=PROJECT, backend=backend, transfer_threads=1)
    receiver = type(opened._receiver(None))
    real = receiver.put

    def failing(self, path, attribute, extension, on_bytes):
        if attribute.endswith("weights.bin"):
            raise SourceError("injected")
        real(self, path, attribute, extension, on_bytes)

    with monkeypatch.context() as patch:
        patch.setattr(receiver, "put", failing)
        with pytest.raises(SourceError, match="injected"):
            opened.upload_directory_to_model_version(places / "up", "m")
    with pytest.raises(UnfinishedUploadError):
        opened.download_directory_from_model_version(places / "down", "m")
    opened.upload_directory_to_model_version(places / "up", "m")
    opened.download_directory_from_model_version(places / "down", "m")
    assert tree(places / "down") == TREE


def test_a_new_version_in_mlflow(places, tmp_path):
    from mlflow import MlflowClient

    opened = open_model_version(model="DEMO-MOD", project=PROJECT, backend="mlflow")
    assert opened.version == "DEMO-MOD-2"
    opened.upload_config_to_model_version(CONFIG, "model/config")
    again = open_model_version("DEMO-MOD-2", project=PROJECT, backend="mlflow")
    assert again.download_config_from_model_version("model/config") == CONFIG
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")  # another test may have set MLflow's global address
    versions = client.search_model_versions("name = 'DEMO-MOD'")
    assert {int(version.version) for version in versions} == {1, 2}
    staging = ["--data-path", "exports/model_data", "--files-path", "exports/model_files", "--no-progress"]
    assert main(["load-models", *staging]) == 0  # which leaves it alone
    assert again.download_config_from_model_version("model/config") == CONFIG
    assert main(["verify", "--models", "--loader", "mlflow", *staging]) == 0


def test_a_version_that_was_only_ever_in_s3(s3, s3_settings, tmp_path):
    opened = open_model_version("NEW-1", project=PROJECT, backend="s3")
    opened.upload_config_to_model_version(CONFIG, "model/config")
    assert keys(s3) == {f"neptune-ai-model-registry/{PROJECT}/NEW-1/model/config"}
    assert opened.download_config_from_model_version("model/config") == CONFIG


def test_an_archive_of_the_official_exporter_finds_tracked_files_where_they_are(places, s3, tmp_path):
    """It keeps the list of an artifact and not its content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from neptune_exporter.model import RunRef
    from neptune_exporter.storage.staging import Staging

    staging = Staging(places / "exports/model_data", places / "exports/model_files")
    run = staging.run(RunRef(PROJECT, "DEMO-MOD-1", "model_version"))
    table = pa.concat_tables(pq.read_table(path) for path in run.part_paths())
    rows = [row for row in table.to_pylist() if row["attribute_type"] != "artifact" or row["string_value"] is None]
    official = tmp_path / "official"
    folder = official / run.part_paths()[0].relative_to(places / "exports/model_data").parent
    folder.mkdir(parents=True)
    first = run.part_paths()[0].name.split("_part_")[0] + "_part_0.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / first)
    opened = open_model_version(
        "DEMO-MOD-1", project=PROJECT, backend="staging", data_path=official, files_path=places / "exports/model_files"
    )
    opened.download_directory_from_model_version(places / "down", "model/in s3")
    assert tree(places / "down") == TREE
    assert opened.download_config_from_model_version("model/config in s3") == CONFIG


def test_what_is_missing_is_named(places, tmp_path, s3):
    with pytest.raises(SourceError, match="DEMO-MOD-9 is not in the model registry of MLflow"):
        open_model_version("DEMO-MOD-9", project=PROJECT, backend="mlflow")
    with pytest.raises(SourceError, match="There are 0 registered models for team/demo/DEMO-NONE"):
        open_model_version(model="DEMO-NONE", project=PROJECT, backend="mlflow")
    with pytest.raises(SourceError, match="does not hold the model version team/demo/DEMO-MOD-9"):
        open_model_version("DEMO-MOD-9", project=PROJECT, backend="staging")
    with pytest.raises(UsageError, match="Say which model version"):
        open_model_version(project=PROJECT, backend="mlflow")
    with pytest.raises(UsageError, match="no backend 'neptune'"):
        open_model_version("X-1", project=PROJECT, backend="neptune")
    with pytest.raises(UsageError, match="no bucket is set"):
        open_model_version("X-1", project=PROJECT, backend="s3", s3_backend_bucket="")
    with pytest.raises(SourceError, match="There is no bucket nowhere"):
        open_model_version(
            "X-1", project=PROJECT, backend="s3", s3_backend_bucket="nowhere"
        ).upload_config_to_model_version({}, "c")


def test_damage_is_noticed(places):
    for path in (places / "exports/model_files").rglob("*weights*.bin"):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)
    staged = open_model_version("DEMO-MOD-1", project=PROJECT, backend="staging")
    with pytest.raises(ExporterError, match="its SHA-256 is not that of the manifest"):
        staged.download_directory_from_model_version(places / "down", "model/in s3")
    assert not (places / "down").exists()
    for path in (places / "mlruns").rglob("weights.bin"):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)
    opened = open_model_version("DEMO-MOD-1", project=PROJECT, backend="mlflow")
    with pytest.raises(SourceError, match="SHA-256 differs"):
        opened.download_directory_from_model_version(places / "down", "model/in s3")
    assert not (places / "down").exists()


def test_a_staging_area_takes_no_uploads_and_says_where_to(places):
    staged = open_model_version("DEMO-MOD-1", project=PROJECT, backend="staging")
    before = tree(places / "exports")
    uploads = [
        lambda: staged.upload_config_to_model_version(CONFIG, "new/config"),
        lambda: staged.upload_file_to_model_version("new/file", places / "up" / "weights.bin", use_s3=True),
        lambda: staged.upload_directory_to_model_version(places / "up", "new/files"),
    ]
    for upload in uploads:
        with pytest.raises(UsageError, match="it takes no uploads") as error:
            upload()
        assert "backend='mlflow'" in error.value.hint
    assert tree(places / "exports") == before
