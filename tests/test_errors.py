# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Errors reach the user with message and hint, whatever process they were raised in."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import pytest

from neptune_exporter import errors
from neptune_exporter.errors import ExporterError, InterruptedRunError, MissingExtraError, Problem

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ExporterError)]
FATAL = {"AccessError", "TargetAccessError", "StoreAccessError"}


def one_of(kind: type[ExporterError]) -> ExporterError:
    if kind is MissingExtraError:
        return MissingExtraError("mlflow", "mlflow")
    return kind("What happened.", "What to do.")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("again", [copy.copy, *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6))])
def test_every_error_survives_pickling(kind, again):
    error = one_of(kind)
    other = again(error)
    assert type(other) is kind
    assert (other.message, other.hint, str(other)) == (error.message, error.hint, error.message)
    assert (other.exit_code, other.fatal) == (error.exit_code, error.fatal)


def test_an_error_without_a_hint():
    error = pickle.loads(pickle.dumps(ExporterError("What happened.")))
    assert (error.message, error.hint) == ("What happened.", "")


def test_no_error_ends_with_exit_code_0():
    assert all(kind.exit_code > 0 for kind in ALL)


def test_only_refused_credentials_are_fatal():
    assert {kind.__name__ for kind in ALL if kind.fatal} == FATAL


def test_an_interruption():
    assert InterruptedRunError().exit_code == 130
    assert str(InterruptedRunError())


def test_a_missing_extra_says_what_to_type():
    error = MissingExtraError("neptune3", "neptune_query")
    assert "neptune_query" in error.message
    assert "pip install 'neptune-exporter[neptune3]'" in error.hint


@pytest.mark.parametrize(
    "problem",
    [Problem("Gone."), Problem("Ünknown", "a/b", "retry", 17), Problem("x", attribute="")],
)
def test_a_problem_survives_json_and_pickling(problem):
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
    assert pickle.loads(pickle.dumps(problem)) == problem


def test_a_problem_of_another_version():
    assert Problem.from_json({"message": "x", "new": 1}) == Problem("x")
