# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What dual logging finds on a machine, and what it lacks: one finding a line, each with its remedy."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from neptune_exporter.errors import ExporterError
from neptune_exporter.mirror.launch import obstacle
from neptune_exporter.mirror.settings import STAGING, TARGET, Settings
from neptune_exporter.stored_keys import PLUTO, stored_key

_PACKAGES = {
    "neptune-scale": "the client of Neptune 3.x",
    "neptune": "the client of Neptune 2.x",
    "mlflow": "for --target mlflow",
    "wandb": "for --target wandb",
    "pluto-ml": "its own compatibility layer; ours does not need it",
    "trainy-mlop": "its own compatibility layer; ours does not need it",
}
_SETTINGS = (
    *("NEPTUNE_EXPORTER_TARGET", "NEPTUNE_EXPORTER_SPOOL", "NEPTUNE_EXPORTER_STEP_MULTIPLIER"),
    *("DISABLE_NEPTUNE_LOGGING", "NEPTUNE_PROJECT", "NEPTUNE_API_TOKEN", "NEPTUNE_MODE", "MLFLOW_TRACKING_URI"),
    *("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY", "MLOP_PROJECT", "MLOP_API_KEY"),
    *("MLOP_URL_APP", "MLOP_URL_API", "MLOP_URL_INGEST", "PLUTO_PROJECT", "PLUTO_API_KEY"),
    *("PLUTO_URL_APP", "PLUTO_URL_API", "PLUTO_URL_INGEST"),
)
_SECRET = ("KEY", "TOKEN")
_TIMEOUT = 5.0
_WANDB, _PLUTO = "https://api.wandb.ai", "https://pluto-api.trainy.ai"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        subject: what was looked at.
        grade: `good`, `note` (neither good nor bad) or `bad`.
        text: what was found.
        remedy: what to do, "" if nothing.
    """

    subject: str
    grade: Literal["good", "note", "bad"]
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def examine(*, ask: bool = True) -> list[Finding]:
    """Everything.

    Args:
        ask: whether to ask the endpoints.
    """
    settings = Settings.from_environment()
    findings = [*_packages(), *_found_settings(), _spool(settings)]
    if ask:
        findings += _endpoints(settings)
    return [*findings, _verdict(settings)]


def _packages() -> Iterator[Finding]:
    for package, purpose in _PACKAGES.items():
        try:
            yield Finding(package, "good", f"{metadata.version(package)} ({purpose})")
        except metadata.PackageNotFoundError:
            yield Finding(package, "note", f"not installed ({purpose})")
    if not any(_installed(name) for name in ("neptune-scale", "neptune")):
        yield Finding(
            "client", "bad", "neither Neptune client is installed.", "Install it with: pip install neptune-scale"
        )


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _found_settings() -> Iterator[Finding]:
    for name in _SETTINGS:
        value = os.environ.get(name)
        if value:
            shown = f"set ({len(value)} characters)" if name.endswith(_SECRET) else _without_password(value)
            yield Finding(name, "good", shown)


def _without_password(value: str) -> str:
    before, at, host = value.rpartition("@")
    if not at or "://" not in before:
        return value
    scheme, _, account = before.partition("://")
    return f"{scheme}://{account.partition(':')[0]}:***@{host}"


def _spool(settings: Settings) -> Finding:
    folder = settings.spool
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding("spool", "good", f"{settings.spool} can be written")
    return Finding("spool", "bad", f"{settings.spool} cannot be written.", "Name another with NEPTUNE_EXPORTER_SPOOL.")


def _endpoints(settings: Settings) -> Iterator[Finding]:
    token = os.environ.get("NEPTUNE_API_TOKEN", "")
    if settings.without_neptune:
        yield Finding("Neptune", "note", "is not called (DISABLE_NEPTUNE_LOGGING)")
    elif token:
        yield _neptune(token)
    if settings.target == "mlflow":
        yield _mlflow(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    elif settings.target == "wandb":
        yield _wandb(os.environ.get("WANDB_BASE_URL") or _WANDB, os.environ.get("WANDB_API_KEY", ""))
    elif settings.target == "pluto":
        url = os.environ.get("PLUTO_URL_API") or os.environ.get("MLOP_URL_API") or _PLUTO
        yield _pluto(url, os.environ.get("PLUTO_API_KEY") or os.environ.get("MLOP_API_KEY", ""))


def _neptune(token: str) -> Finding:
    remedy = "Set NEPTUNE_API_TOKEN anew, or DISABLE_NEPTUNE_LOGGING=true if Neptune is gone."
    try:
        address = str(json.loads(base64.b64decode(token))["api_url"]).rstrip("/")
    except (binascii.Error, ValueError, KeyError, TypeError):
        return Finding("Neptune", "bad", "NEPTUNE_API_TOKEN is no token of Neptune's.", remedy)
    status = _ask("GET", f"{address}/api/backend/v1/authorization/oauth-token", {"X-Neptune-Api-Token": token})
    return _judge("Neptune", address, status, remedy)


def _mlflow(uri: str) -> Finding:
    if not uri.startswith(("http://", "https://")):
        return Finding("mlflow", "good", f"{_without_password(uri)} (a database; tried when it is used)")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search"
    headers = {}
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['MLFLOW_TRACKING_TOKEN']}"
    elif user:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    status = _ask("POST", address, headers, {"max_results": 1})
    return _judge("mlflow", _without_password(uri), status, "Set MLFLOW_TRACKING_URI and its credentials.")


def _wandb(address: str, key: str) -> Finding:
    if not key:
        return Finding("wandb", "note", "WANDB_API_KEY is not set; what `wandb login` stored is used")
    headers = {"Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode()}
    status = _ask("POST", f"{address.rstrip('/')}/graphql", headers, {"query": "query { viewer { id } }"})
    return _judge("wandb", address, status, "Set WANDB_API_KEY and WANDB_BASE_URL.")


def _pluto(address: str, key: str) -> Finding:
    key = key or stored_key(*PLUTO)
    if not key:
        text = "no key is set, and none is stored with keyring."
        return Finding("pluto", "bad", text, "Set MLOP_API_KEY or PLUTO_API_KEY.")
    status = _ask("POST", f"{address.rstrip('/')}/api/slug", {"Authorization": f"Bearer {key}"}, {})
    return _judge("pluto", address, status, "Set MLOP_API_KEY and MLOP_URL_API, or PLUTO_API_KEY and PLUTO_URL_API.")


def _ask(method: str, url: str, headers: dict[str, str], body: Any = None) -> int | str:
    """The status of the answer, or why there is none."""
    import httpx

    try:
        return httpx.request(method, url, headers=headers, json=body, timeout=_TIMEOUT).status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return str(error) or type(error).__name__


def _judge(subject: str, address: str, status: int | str, remedy: str) -> Finding:
    if isinstance(status, str):
        return Finding(subject, "bad", f"{address} does not answer: {status}.", remedy)
    if status in (401, 403):
        return Finding(subject, "bad", f"{address} answers and refuses the key.", remedy)
    if status >= 400:
        return Finding(subject, "bad", f"{address} answers with status {status}.", remedy)
    return Finding(subject, "good", f"{address} answers and takes the key")


def _verdict(settings: Settings) -> Finding:
    if not settings.target:
        kept = " What is logged is kept in the spool." if settings.without_neptune else ""
        return Finding("dual logging", "note", f"would not feed anything: no target is set.{kept}", f"Set {TARGET}.")
    try:
        reason = obstacle(settings)
    except ExporterError as error:
        reason = str(error)
    if reason:
        return Finding("dual logging", "bad", reason)
    where = (os.environ.get("NEPTUNE_EXPORTER_DATA_PATH") or "exports/data") if settings.target == STAGING else ""
    return Finding("dual logging", "good", f"would start, to {settings.target} ({settings.why}) {where}".rstrip())
