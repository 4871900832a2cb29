# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import validate_path_is_safe
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from neptune_exporter.loaders.keys import (
    ARTIFACT_RULE,
    ArtifactPaths,
    folded,
    shortened,
    suffixed,
    target_key,
    target_keys,
)
from neptune_exporter.loaders.mlflow.tags import KEY_RULE

# Names that are near each other are the ones that collide.
NAMES = st.text(st.sampled_from("aAbé/._- :\t\n?#%[]💡\\~İß0"), max_size=8) | st.text(max_size=300)
PAIRS = st.tuples(NAMES, st.sampled_from(["int", "string"]))


@given(st.lists(PAIRS, max_size=30))
def test_two_names_never_share_a_key(pairs):
    keys = target_keys(pairs, KEY_RULE)
    assert set(keys) == set(pairs)
    assert len({folded(key) for key in keys.values()}) == len(keys)
    for key in keys.values():
        assert 0 < len(key) <= 250
        for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
            validate(key)


@given(st.lists(PAIRS, max_size=12), st.randoms())
def test_keys_do_not_depend_on_the_order(pairs, rng: random.Random):
    mixed = list(pairs)
    rng.shuffle(mixed)
    assert target_keys(mixed, KEY_RULE) == target_keys(pairs, KEY_RULE)


@given(st.lists(NAMES, max_size=12))
def test_a_key_does_not_depend_on_other_names_unless_they_look_alike(names):
    alone = {name: target_key(name, KEY_RULE) for name in names}
    if len({folded(key) for key in alone.values()}) == len(alone):
        assert target_keys([(name, "float_series") for name in names], KEY_RULE) == {
            (name, "float_series"): key for name, key in alone.items()
        }


@pytest.mark.parametrize(
    "name", ["loss", "train/loss", "a b", "a:b", "Übung/größe", "a.b-c_d/e", "x--deadbee", ".hidden"]
)
def test_legal_names_stay_as_they_are(name):
    assert target_key(name, KEY_RULE) == name


def test_loss_18_names_that_mlflow_refuses_keep_their_readable_part():
    for name in ("acc@1", "a//b", "/a", "a/", "./a", "..", "", "a\tb", "x" * 251, "loss [train]", "..a", "a/../b"):
        with pytest.raises(MlflowException):
            _validate_metric_name(name) if len(name) < 251 else _too_long()
        key = target_key(name, KEY_RULE)
        _validate_metric_name(key)
        assert re.fullmatch(r".*--[0-9a-f]{8}", key)
    assert target_key("acc@1", KEY_RULE).startswith("acc_1--")
    assert target_key("a//b", KEY_RULE).startswith("a/_/b--")


def _too_long():
    raise MlflowException("MLflow checks lengths elsewhere")


def test_loss_18_colon_and_other_alphabets_are_kept_and_do_not_collide():
    names = ["a:b", "a_b", "a b", "ñ", "n", "_", "損失", "a/b"]
    keys = target_keys([(name, "float_series") for name in names], KEY_RULE)
    assert [keys[name, "float_series"] for name in names if name not in ("ñ", "n")] == [
        name for name in names if name not in ("ñ", "n")
    ]
    assert keys["n", "float_series"] == "n"  # some databases take ñ for n
    assert keys["ñ", "float_series"].startswith("ñ--")


def test_loss_18_long_names_with_a_common_beginning_do_not_collide():
    names = [("x" * 300 + str(n), "int") for n in range(50)]
    keys = target_keys(names, KEY_RULE)
    assert len(set(keys.values())) == 50
    assert all(len(key) == 250 for key in keys.values())


def test_one_path_with_two_types_gets_two_keys():
    keys = target_keys([("a", "string"), ("a", "int")], KEY_RULE)
    assert keys["a", "int"] == "a"
    assert keys["a", "string"].startswith("a--")


def test_a_legal_name_that_looks_changed_is_changed():
    changed = target_key("a?", KEY_RULE)
    assert target_key(changed, KEY_RULE) != changed


def test_hashes_that_agree_are_told_apart_by_longer_ones(monkeypatch):
    from neptune_exporter.loaders import keys as module

    def same_eight(readable, identity, rule, digits=8):
        return f"{readable}--{'0' * 8}" if digits == 8 else suffixed(readable, identity, rule, digits)

    monkeypatch.setattr(module, "suffixed", same_eight)
    keys = target_keys([("a?", "int"), ("a#", "int")], KEY_RULE)
    assert len(set(keys.values())) == 2


def test_shortened_texts_keep_their_difference():
    assert shortened("x" * 250, 250) == "x" * 250
    assert len(shortened("x" * 251, 250)) == 250
    assert shortened("x" * 300 + "a", 250) != shortened("x" * 300 + "b", 250)


@given(st.lists(NAMES, max_size=30))
def test_artifact_paths_are_safe_and_never_shared(names):
    paths = ArtifactPaths()
    taken = [paths.take(f"files/{target_key(name, ARTIFACT_RULE)}.png", f"{name}\0{n}") for n, name in enumerate(names)]
    assert len({folded(path) for path in taken}) == len(names)
    folders = {folded(str(parent)) for path in taken for parent in PurePosixPath(path).parents}
    assert not folders & {folded(path) for path in taken}
    for path in taken:
        validate_path_is_safe(path)
        assert not re.search(r"[#?%\\:\x00-\x1f]", path)
        assert all(part not in ("", ".", "..") and len(part.encode()) < 255 for part in path.split("/"))


def test_a_file_and_a_folder_of_one_name_are_told_apart():
    paths = ArtifactPaths()
    assert paths.take("files/a", "1") == "files/a"
    below = [paths.take("files/a/b", "2"), paths.take("files/a/c", "3")]
    assert [re.sub(r"[0-9a-f]{8}", "#", path) for path in below] == ["files/a--#/b", "files/a--#/c"]
    assert below[0].split("/")[1] == below[1].split("/")[1]
    assert paths.take("files/x/y.txt", "4") == "files/x/y.txt"
    assert re.fullmatch(r"files/x--[0-9a-f]{8}", paths.take("files/x", "5"))
    assert re.fullmatch(r"files/x/y--[0-9a-f]{8}\.txt", paths.take("files/x/Y.txt", "6").replace("Y", "y"))


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a/COM1/b", "end.", "end ", ".artifact.uploading.x", "a\\b", "a:b"])
def test_names_that_some_disk_refuses_are_changed(name):
    assert target_key(name, ARTIFACT_RULE) != name
