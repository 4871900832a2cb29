# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""The verb `load-models`: models and versions as runs, and then, in their order, in the target's model registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from neptune_exporter.errors import ExporterError, StagingError
from neptune_exporter.load import chosen, connected, load
from neptune_exporter.loaders.loader import (
    LoadOptions,
    ModelToRegister,
    RegistryDifference,
    TargetState,
    VersionToRegister,
)
from neptune_exporter.model import Kind, RunInfo, RunRef
from neptune_exporter.pipeline import Outcome, Report
from neptune_exporter.progress import Progress
from neptune_exporter.selection import CLASS_OF_TYPE, Selection
from neptune_exporter.storage.run import StagedRun
from neptune_exporter.storage.staging import Staging

KINDS: tuple[Kind, ...] = ("model", "model_version")
_DESCRIBED = {
    "sys/stage": ("string", "run_state"),
    "sys/description": ("string",),
    "sys/model_id": ("string",),
    "sys/tags": ("string_set",),
}
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


def has_registry(loader: Any) -> bool:
    """Whether a loader's target has a model registry: whether it is a `Registry`."""
    return callable(getattr(loader, "register", None))


def load_models(
    name: str,
    options: Any,
    common: LoadOptions,
    staging: Staging,
    selection: Selection,
    *,
    step_multiplier: int | None = None,
    workers: int = 4,
    executor: str = "processes",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Loads the selected models and versions, and registers them; takes what `load` takes.

    Raises:
        ExporterError: the target does not answer, or an option cannot be what it is.
    """
    common, selection = replace(common, models=True), replace(selection, kinds=KINDS)
    report = load(
        name,
        options,
        common,
        staging,
        selection,
        step_multiplier=step_multiplier,
        workers=workers,
        executor=executor,
        dry_run=dry_run,
        progress=progress,
    )
    if dry_run:
        return report
    loader: Any = connected(name, options, common)
    try:
        if has_registry(loader):
            _register(loader, staging, selection, report)
            report.after = report.after or loader.describe()
        else:
            report.notes.append(f"{loader.name} has no model registry: models and versions are runs with their files.")
    finally:
        loader.close()
        connected.cache_clear()
    return report


def _register(loader: Any, staging: Staging, selection: Selection, report: Report) -> None:
    outcomes = {outcome.ref: outcome for outcome in report.outcomes}
    for project_id in sorted({ref.project_id for ref in outcomes}):
        states = loader.states(project_id).runs
        for model in models_of(staging, project_id, states, selection):
            members = [ref for ref in _refs(model) if ref in outcomes]
            if not members:
                continue
            try:
                changed = set(loader.register(model))
            except ExporterError as error:
                if error.fatal:
                    raise
                reason = f"It was loaded, but not registered. {error.message} {error.hint}".strip()
                outcomes.update((ref, replace(outcomes[ref], status="failed", reason=reason)) for ref in members)
                continue
            outcomes.update((ref, _after(outcomes[ref], ref in changed)) for ref in members)
            for version in _waiting(model):
                outcomes[version] = _left_out(outcomes.get(version), version, model)
    report.outcomes[:] = outcomes.values()


def _refs(model: ModelToRegister) -> list[RunRef]:
    return [model.info.ref, *(version.info.ref for version in model.versions)]


def _after(outcome: Outcome, changed: bool) -> Outcome:
    """A version that had been loaded before, but was registered only now, is done."""
    if changed and outcome.status == "skipped":
        return replace(outcome, status="done", reason="registered; it had been loaded before")
    return outcome


def _waiting(model: ModelToRegister) -> list[RunRef]:
    """The versions after the first one that is not loaded."""
    refs: list[RunRef] = []
    waiting = False
    for version in model.versions:
        if waiting:
            refs.append(version.info.ref)
        waiting = waiting or version.loaded_as is None
    return refs


def _left_out(outcome: Outcome | None, ref: RunRef, model: ModelToRegister) -> Outcome:
    first = next(version for version in model.versions if version.loaded_as is None)
    reason = f"It is registered after {first.info.ref.run_id}, which is not loaded."
    if outcome is None or outcome.status != "failed":
        return Outcome(ref, "failed", reason)
    return outcome


# --- what is staged


def models_of(
    staging: Staging, project_id: str, states: Mapping[RunRef, TargetState], selection: Selection
) -> Iterator[ModelToRegister]:
    """The models of a project with their versions in order of creation.

    A version that is neither selected nor in the target is as good as not there.
    """
    models = {run.ref.run_id: run for run in staging.folder(project_id, "model").runs(_told_before)}
    versions: dict[str, list[VersionToRegister]] = {}
    for run in staging.folder(project_id, "model_version").runs(_told_before):
        state = states.get(run.ref)
        if selection.wants_run(run.ref.run_id) or (state is not None and state.complete):
            values, loaded_as = _described(run, state, selection)
            model_id = values.get("sys/model_id") or run.ref.run_id.rpartition("-")[0]
            versions.setdefault(str(model_id), []).append(_version(run, values, loaded_as))
    for model_id in sorted({*models, *versions}):
        found = tuple(sorted(versions.get(model_id, ()), key=_age))
        model = models.get(model_id)
        if model is None:
            yield ModelToRegister(RunInfo(RunRef(project_id, model_id, "model")), versions=found)
            continue
        values, loaded_as = _described(model, states.get(model.ref), selection)
        if found or loaded_as is not None:
            description, labels = str(values.get("sys/description") or ""), _labels(values)
            yield ModelToRegister(model.info, loaded_as, description, labels, found)


def _told_before(error: StagingError) -> None:
    """What cannot be opened was reported when it was to be loaded; what comes after it is put in order later."""


def _described(run: StagedRun, state: TargetState | None, selection: Selection) -> tuple[dict[str, Any], str | None]:
    """What describes a model or a version, and its run in the target; one that is damaged is not loaded."""
    try:
        return _values(run), _loaded_as(run, state, selection)
    except StagingError:
        return {}, None


def _version(run: StagedRun, values: Mapping[str, Any], loaded_as: str | None) -> VersionToRegister:
    return VersionToRegister(
        run.info,
        loaded_as,
        str(values.get("sys/stage") or ""),
        str(values.get("sys/description") or ""),
        _labels(values),
        loaded_as is not None and any(CLASS_OF_TYPE.get(a.type) == "files" and a.rows for a in run.attributes()),
        partial(run.read, None, _is_file) if loaded_as is not None else None,
        run.files if loaded_as is not None else None,
    )


def _is_file(_path: str, attribute_type: str) -> bool:
    return CLASS_OF_TYPE.get(attribute_type) == "files"


def _labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(values.get("sys/tags") or ()))


def _loaded_as(run: StagedRun, state: TargetState | None, selection: Selection) -> str | None:
    """The complete run in the target, if it is of this state, or was not to be loaded now."""
    if state is None or not state.complete:
        return None
    wanted = selection.wants_run(run.ref.run_id)
    return state.target_id if not wanted or state.digest == chosen(run, selection)[1] else None


def _age(version: VersionToRegister) -> tuple[datetime, int, str]:
    number = version.info.ref.run_id.rpartition("-")[2]
    return (
        version.info.created or _LONG_AGO,
        int(number) if number.isdecimal() else 0,
        version.info.ref.run_id,
    )


def _values(run: StagedRun) -> dict[str, Any]:
    """What describes a model or a version, by attribute path."""
    found: dict[str, Any] = {}
    for batch in run.read(None, lambda path, kind: kind in _DESCRIBED.get(path, ())):
        columns = ["attribute_path", "string_value", "string_set_value"]
        for row in batch.select(columns).to_pylist():
            value = row["string_value"] if row["string_value"] is not None else row["string_set_value"]
            found[row["attribute_path"]] = value
    return found


def differences(
    loader: Any, staging: Staging, project_id: str, states: Mapping[RunRef, TargetState], selection: Selection
) -> Iterator[RegistryDifference]:
    """In what the target's registry differs from the staging area."""
    if has_registry(loader):
        for model in models_of(staging, project_id, states, selection):
            yield from loader.compare(model)
