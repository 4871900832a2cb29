# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Every method of `TrackedModelVersion` with the real client, against a Neptune server and S3 on the wire."""

from __future__ import annotations

import io
import json

import pytest
from neptune.types import File
from registry_state import BUCKET, PROJECT, attributes, keys, tree, write_tree

from neptune_exporter.errors import SourceError, UsageError
from neptune_exporter.registry import TrackedModelVersion
from neptune_exporter.registry.transfer import MissingAttributeError, UnfinishedUploadError

PREFIX = f"neptune-ai-model-registry/{PROJECT}/DEMO-MOD-1/"
TREE = {
    "weights.bin": bytes(range(256)) * 40,
    "empty.txt": b"",
    "no extension": b"x",
    "nested/deeper/config.json": b'{"a": 1}',
    "nested/ключ ☃.txt": "zażółć".encode(),
    "nested/a*b[c]?.txt": b"a name like a pattern",
    "weights.bin.d/part": b"a sibling that begins alike",
}
STORAGES = pytest.mark.parametrize("use_s3", [False, True], ids=["neptune", "s3"])


@STORAGES
def test_a_directory_comes_back_as_it_was(version, tmp_path, use_s3):
    folder = write_tree(tmp_path / "up", TREE)
    version.upload_directory_to_model_version(folder, "model/artifacts", use_s3=use_s3)
    version.download_directory_from_model_version(tmp_path / "down", "model/artifacts")
    assert tree(tmp_path / "down") == TREE
    # The files of one of its directories are a directory, too.
    version.download_directory_from_model_version(str(tmp_path / "part"), "/model/artifacts/nested/")
    assert tree(tmp_path / "part") == {k.removeprefix("nested/"): v for k, v in TREE.items() if k.startswith("nested/")}


def test_attribute_paths_are_the_relative_paths(version, server, s3, tmp_path):
    folder = write_tree(tmp_path / "up", TREE)
    version.upload_directory_to_model_version(folder, "in neptune", use_s3=False)
    version.upload_directory_to_model_version(folder, "in s3", use_s3=True)
    held = attributes(server)
    assert {path for path, a in held.items() if a.type == "file"} == {f"in neptune/{name}" for name in TREE}
    assert {path for path, a in held.items() if a.type == "artifact"} == {f"in s3/{name}" for name in TREE}
    assert set(held) == {f"in {where}/{name}" for where in ("neptune", "s3") for name in TREE}
    assert keys(s3) == {f"{PREFIX}in s3/{name}" for name in TREE}
    for name, content in TREE.items():
        assert s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}in s3/{name}")["Body"].read() == content
        assert held[f"in neptune/{name}"].value[0] == content


def test_an_artifact_is_exactly_one_object(version, server, s3, tmp_path):
    folder = write_tree(tmp_path / "up", {"a": b"1", "ab": b"22", "a.b/c": b"333"})
    version.upload_directory_to_model_version(folder, "m", use_s3=True)
    for name, size in (("a", 1), ("ab", 2), ("a.b/c", 3)):
        identifier = attributes(server)[f"m/{name}"].value
        (file,) = server.store.artifacts[identifier]
        metadata = {item["key"]: item["value"] for item in file["metadata"]}
        assert metadata["location"] == f"s3://{BUCKET}/{PREFIX}m/{name}"
        assert (file["type"], file["size"], file["filePath"]) == ("S3", size, name.rpartition("/")[2])
        assert file["fileHash"] == s3.head_object(Bucket=BUCKET, Key=f"{PREFIX}m/{name}")["ETag"].strip('"')


@STORAGES
def test_a_file_by_its_path(version, tmp_path, use_s3):
    path = write_tree(tmp_path, {"model.pt": b"weights" * 100}) / "model.pt"
    version.upload_file_to_model_version("model/weights", path, use_s3=use_s3)
    version.upload_file_to_model_version("model/weights too", str(path), use_s3=use_s3)
    version.download_file_from_model_version("model/weights", tmp_path / "new" / "down.pt")
    assert (tmp_path / "new" / "down.pt").read_bytes() == path.read_bytes()


@STORAGES
@pytest.mark.parametrize("make", [
    lambda: File.from_content(b"\0bytes", extension="bin"),
    lambda: File.from_content("zażółć"),
    lambda: File.from_stream(io.BytesIO(b"stream"), extension="dat"),
    lambda: File.from_stream(io.StringIO("☃")),
], ids=["bytes", "text", "stream", "text stream"])  # fmt: skip
def test_a_file_object(version, server, tmp_path, use_s3, make):
    version.upload_file_to_model_version("model/thing", file_object=make(), use_s3=use_s3)
    version.download_file_from_model_version("model/thing", tmp_path / "down")
    given = make()
    assert (tmp_path / "down").read_bytes() == given.content
    attribute = attributes(server)["model/thing"]
    if use_s3:
        assert server.store.artifacts[attribute.value][0]["filePath"] == f"thing.{given.extension}"
    else:
        assert attribute.value[1] == given.extension


def test_a_file_object_of_a_path(version, tmp_path):
    path = write_tree(tmp_path, {"a.txt": b"a"}) / "a.txt"
    version.upload_file_to_model_version("f", file_object=File(str(path)))
    version.download_file_from_model_version("f", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"a"


@STORAGES
def test_a_config(version, tmp_path, use_s3):
    config = {"name": "zażółć ☃", "layers": [1, 2.5, None, True], "nested": {"é": {}}}
    version.upload_config_to_model_version(config, "model/config", use_s3=use_s3)
    assert version.download_config_from_model_version("model/config") == config
    version.download_file_from_model_version("model/config", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_bytes()) == config


def test_a_config_that_has_no_json_is_refused(version, server):
    with pytest.raises(TypeError):
        version.upload_config_to_model_version({"a": object()}, "model/config")
    assert not attributes(server)


def test_a_file_that_is_no_config(version):
    version.upload_file_to_model_version("f", file_object=File.from_content(b"\xff\xfe{"))
    with pytest.raises(SourceError, match="f is not JSON"):
        version.download_config_from_model_version("f")
    version.upload_file_to_model_version("g", file_object=File.from_content(b"[1]"))
    with pytest.raises(SourceError, match="no object"):
        version.download_config_from_model_version("g")


# --- which storage


def test_the_storage_is_chosen_per_call_then_per_object_then_by_the_environment(version, server, s3, monkeypatch):
    def kind(path: str, **how) -> str:
        version.upload_config_to_model_version({}, path, **how)
        return attributes(server)[path].type

    assert kind("a") == "artifact"  # S3 is the default
    assert kind("b", use_s3=False) == "file"
    settings = version.configure_s3_storage_backend(use_s3_backend=False)
    assert (settings.use_s3_backend, version.use_s3_backend, version.s3_backend_bucket) == (False, False, BUCKET)
    assert kind("c") == "file"
    assert kind("d", use_s3=True) == "artifact"
    monkeypatch.setenv("ONCLUSIVEML_TRACKING_BACKEND_USE_S3_BACKEND", "false")
    assert kind("e") == "file"
    version.configure_s3_storage_backend(use_s3_backend=True)
    assert kind("f") == "artifact"


def test_another_bucket_and_prefix_for_one_object(version, server, s3):
    s3.create_bucket(Bucket="others")
    version.configure_s3_storage_backend(s3_backend_bucket="others", s3_backend_prefix="")
    version.upload_config_to_model_version({"a": 1}, "c")
    assert version.derive_model_version_s3_prefix() == "team/demo/DEMO-MOD-1"
    assert version.derive_model_version_s3_prefix("p/q") == "p/q/team/demo/DEMO-MOD-1"
    assert [o.key for o in version.get_s3_bucket_client().objects.all()] == ["team/demo/DEMO-MOD-1/c"]
    assert list(version.get_s3_bucket_client(BUCKET).objects.all()) == []
    # What was stored stays where it is recorded to be.
    version.configure_s3_storage_backend()
    assert version.download_config_from_model_version("c") == {"a": 1}


def test_both_storages_in_one_directory(version, tmp_path):
    version.upload_config_to_model_version({"a": 1}, "m/neptune.json", use_s3=False)
    version.upload_config_to_model_version({"b": 2}, "m/s3.json", use_s3=True)
    version.download_directory_from_model_version(tmp_path / "down", "m")
    assert {k: json.loads(v) for k, v in tree(tmp_path / "down").items()} == {
        "neptune.json": {"a": 1},
        "s3.json": {"b": 2},
    }


def test_what_the_client_itself_has_tracked_and_uploaded(version, server, s3, s3_server, tmp_path, monkeypatch):
    """Artifacts of several files are directories, single ones files; images and texts are none."""
    monkeypatch.setenv("S3_ENDPOINT_URL", s3_server)
    for name in ("a.bin", "sub/b.bin"):
        s3.put_object(Bucket=BUCKET, Key=f"old/{name}", Body=name.encode())
    folder = write_tree(tmp_path / "local", {"x": b"x", "y/z": b"z"})
    version["m/tracked"].track_files(f"s3://{BUCKET}/old/", wait=True)
    version["m/local"].track_files(str(folder), wait=True)
    version["m/own"].upload(File.from_content(b"own"), wait=True)
    version["m/text"] = "no file"
    version.download_directory_from_model_version(tmp_path / "down", "m")
    assert tree(tmp_path / "down") == {
        "tracked/a.bin": b"a.bin",
        "tracked/sub/b.bin": b"sub/b.bin",
        "local/x": b"x",
        "local/y/z": b"z",
        "own": b"own",
    }
    (folder / "x").write_bytes(b"changed")
    with pytest.raises(SourceError, match="has changed since it was tracked"):
        version.download_directory_from_model_version(tmp_path / "again", "m/local")
    assert not (tmp_path / "again").exists()


def test_what_was_uploaded_is_known_to_the_clients_own_methods(version, tmp_path):
    version.upload_config_to_model_version({"a": 1}, "c", use_s3=False)
    version["c"].download(str(tmp_path / "c.json"))
    assert json.loads((tmp_path / "c.json").read_bytes()) == {"a": 1}
    version.upload_config_to_model_version({"a": 1}, "d", use_s3=True)
    assert [f.file_path for f in version["d"].fetch_files_list()] == ["d.json"]


# --- what is left out, and what is there already


def test_hidden_and_dunder_files_and_folders_are_left_out(version, server, tmp_path):
    wanted = {"a.txt": b"a", "sub/_b.txt": b"b"}
    hidden = {".git/config": b"", "__pycache__/x.pyc": b"", "sub/.hidden": b"", "sub/__init__.py": b""}
    folder = write_tree(tmp_path / "up", wanted | hidden)
    version.upload_directory_to_model_version(folder, "m", use_s3=False)
    assert set(attributes(server)) == {f"m/{name}" for name in wanted}
    version.upload_directory_to_model_version(folder, "all", exclude=[], use_s3=False)
    assert {p for p in attributes(server) if p.startswith("all/")} == {f"all/{name}" for name in wanted | hidden}
    version.upload_directory_to_model_version(folder, "other", exclude=["a", "sub"], use_s3=False)
    left = {".git/config", "__pycache__/x.pyc"}
    assert {p for p in attributes(server) if p.startswith("other/")} == {f"other/{name}" for name in left}


def test_links_are_followed_and_loops_are_not(version, server, tmp_path):
    folder = write_tree(tmp_path / "up", {"a": b"a"})
    write_tree(tmp_path / "outside", {"b": b"b"})
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "c").symlink_to(folder / "a")
    version.upload_directory_to_model_version(folder, "m", use_s3=False)
    assert set(attributes(server)) == {"m/a", "m/c", "m/linked/b"}


@STORAGES
def test_existing_files_stay_unless_asked(version, tmp_path, use_s3):
    version.upload_directory_to_model_version(write_tree(tmp_path / "up", {"a": b"new", "b": b"b"}), "m", use_s3=use_s3)
    down = write_tree(tmp_path / "down", {"a": b"old", "mine": b"mine"})
    with pytest.raises(FileExistsError, match="overwrite=True"):
        version.download_directory_from_model_version(down, "m")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        version.download_file_from_model_version("m/a", down / "a")
    assert tree(down) == {"a": b"old", "mine": b"mine"}
    version.download_file_from_model_version("m/a", down / "a", overwrite=True)
    assert tree(down) == {"a": b"new", "mine": b"mine"}
    (down / "a").write_bytes(b"old")
    version.download_directory_from_model_version(down, "m", overwrite=True)
    assert tree(down) == {"a": b"new", "b": b"b", "mine": b"mine"}


@STORAGES
def test_an_attribute_can_be_uploaded_again(version, use_s3):
    for n in (1, 2):
        version.upload_config_to_model_version({"n": n}, "c", use_s3=use_s3)
        assert version.download_config_from_model_version("c") == {"n": n}


def test_a_version_that_was_opened_again(version, server, s3, s3_settings, tmp_path):
    version.upload_config_to_model_version({"a": 1}, "in/s3", use_s3=True)
    version.upload_config_to_model_version({"a": 2}, "in/neptune", use_s3=False)
    version.stop()
    for mode in ("read-only", "sync", "async"):
        opened = TrackedModelVersion(with_id="DEMO-MOD-1", project=PROJECT, mode=mode)
        assert opened.download_config_from_model_version("in/s3") == {"a": 1}
        assert opened.download_config_from_model_version("in/neptune") == {"a": 2}
        if mode == "read-only":
            for use_s3 in (True, False):
                with pytest.raises(UsageError, match="read-only"):
                    opened.upload_config_to_model_version({}, "c", use_s3=use_s3)
        else:
            opened.upload_config_to_model_version({"mode": mode}, mode)
            assert opened.download_config_from_model_version(mode) == {"mode": mode}
        opened.stop()


def test_mode_debug_keeps_files_in_memory(tmp_path):
    opened = TrackedModelVersion(model="X", project=PROJECT, mode="debug")
    folder = write_tree(tmp_path / "up", {"a": b"a", "b/c.txt": b"c"})
    opened.upload_directory_to_model_version(folder, "m", use_s3=False)
    opened.download_directory_from_model_version(tmp_path / "down", "m")
    assert tree(tmp_path / "down") == {"a": b"a", "b/c.txt": b"c"}
    opened.configure_s3_storage_backend(s3_backend_bucket="any")
    with pytest.raises(UsageError, match="debug"):
        opened.upload_config_to_model_version({}, "c")
    opened.stop()


# --- what cannot be


def test_wrong_arguments(version, tmp_path):
    with pytest.raises(ValueError, match="either"):
        version.upload_file_to_model_version("a")
    with pytest.raises(ValueError, match="either"):
        version.upload_file_to_model_version("a", "b", File.from_content("c"))
    with pytest.raises(FileExistsError, match="is not a file"):
        version.upload_file_to_model_version("a", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        version.upload_file_to_model_version("a", file_object=File(str(tmp_path / "none")))
    with pytest.raises(FileExistsError, match="is not a directory"):
        version.upload_directory_to_model_version(tmp_path / "none", "a")
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no file to upload"):
        version.upload_directory_to_model_version(tmp_path / "empty", "a")
    with pytest.raises(UsageError, match="attribute path is needed"):
        version.upload_config_to_model_version({}, "//")
    with pytest.raises(TypeError, match="list of prefixes"):
        version.upload_directory_to_model_version(tmp_path, "a", exclude="__")
    with pytest.raises(UsageError, match="File"):
        version.upload_file_to_model_version("a", file_object=b"bytes")


def test_missing_attributes_are_named_with_what_is_near(version, tmp_path):
    version.upload_config_to_model_version({}, "model/artifacts/config")
    with pytest.raises(MissingAttributeError, match="no file model/artifact/config") as error:
        version.download_config_from_model_version("model/artifact/config")
    assert "model/artifacts/config" in error.value.hint
    with pytest.raises(MissingAttributeError, match="is a directory of 1 files"):
        version.download_file_from_model_version("model/artifacts", tmp_path / "x")
    with pytest.raises(MissingAttributeError, match="is a file"):
        version.download_directory_from_model_version(tmp_path / "x", "model/artifacts/config")
    with pytest.raises(MissingAttributeError, match="no file model/arti"):
        version.download_directory_from_model_version(tmp_path / "x", "model/arti")
    assert not (tmp_path / "x").exists()


def test_an_attribute_does_not_change_its_storage_silently(version, tmp_path):
    version.upload_config_to_model_version({}, "c", use_s3=False)
    with pytest.raises(UsageError, match=r"c is a file already") as error:
        version.upload_config_to_model_version({}, "c", use_s3=True)
    assert "del " in error.value.hint
    with pytest.raises(UsageError, match=r"c/d and c cannot both be"):
        version.upload_config_to_model_version({}, "c/d", use_s3=False)
    del version["c"]
    version.upload_config_to_model_version({"a": 1}, "c", use_s3=True)
    assert version.download_config_from_model_version("c") == {"a": 1}


def test_a_hostile_attribute_path_is_not_written(version, server, tmp_path):
    server.store.container(f"{PROJECT}/DEMO-MOD-1").set("m/../../evil", "file", (b"evil", ""))
    with pytest.raises(UsageError, match="no path that can be written"):
        version.download_directory_from_model_version(tmp_path / "down", "m")
    assert not list(tmp_path.glob("**/evil"))


def test_a_key_that_is_too_long_is_refused_before_anything_is_sent(version, server, s3, tmp_path):
    folder = write_tree(tmp_path / "up", {"a": b"a", "/".join(["ü" * 100] * 6): b"b"})
    with pytest.raises(UsageError, match="longer than S3 allows"):
        version.upload_directory_to_model_version(folder, "m")
    assert not attributes(server)
    assert not keys(s3)


def test_a_directory_that_is_being_uploaded_is_not_complete(version, server, tmp_path):
    server.store.container(f"{PROJECT}/DEMO-MOD-1").set("m/sub/__uploading__", "string", "x")
    folder = write_tree(tmp_path / "up", {"a": b"a"})
    version.upload_directory_to_model_version(folder, "m")
    with pytest.raises(UnfinishedUploadError, match="m/sub was interrupted"):
        version.download_directory_from_model_version(tmp_path / "down", "m")
    version.upload_directory_to_model_version(folder, "m/sub")
    version.download_directory_from_model_version(tmp_path / "down", "m")
    assert tree(tmp_path / "down") == {"a": b"a", "sub/a": b"a"}
