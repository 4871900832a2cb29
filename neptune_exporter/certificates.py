# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Whose certificates are trusted: one setting for every client that speaks to a server.

Each client has a variable of its own: httpx and Go programs such as wandb-core read `SSL_CERT_FILE`, requests (the
clients of Neptune 2.x and MLflow) `REQUESTS_CA_BUNDLE`, boto3 `AWS_CA_BUNDLE`. Certificates are always checked.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from neptune_exporter.errors import ExporterError, UsageError

_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_FOLDER = "SSL_CERT_DIR"


def trust(bundle: str = "") -> None:
    """Trusts the certificates in a PEM file, in this process and those that it starts, instead of the system's.

    Args:
        bundle: the file; without one, what any of the usual variables names is trusted by all clients.

    Raises:
        UsageError: the file cannot be read, or holds no certificate.
    """
    if bundle:
        _check(bundle)
        chosen = str(Path(bundle).absolute())
        os.environ.update(dict.fromkeys(_FILES, chosen))
        return
    chosen = next((os.environ[name] for name in _FILES if os.environ.get(name)), "")
    if chosen and Path(chosen).is_dir():
        os.environ.setdefault(_FOLDER, chosen)
    elif chosen:
        for name in _FILES:
            os.environ[name] = os.environ.get(name) or chosen


def is_untrusted(error: BaseException) -> bool:
    """Whether a connection failed for want of trust: trying again would not help."""
    said: BaseException | None = error
    while said is not None and "CERTIFICATE_VERIFY_FAILED" not in str(said):
        said = said.__cause__ or said.__context__
    return said is not None


def untrusted(url: str, kind: type[ExporterError]) -> ExporterError:
    """What is said where a connection failed for want of trust."""
    return kind(
        f"The certificate of {url} is not trusted.",
        "If an authority of your own has signed it, name its certificate with --ca-bundle FILE.",
    )


def refuse_untrusted(error: BaseException, url: str, kind: type[ExporterError]) -> None:
    """Raises an error of this kind if a connection failed for want of trust."""
    if is_untrusted(error):
        raise untrusted(url, kind) from None


def _check(bundle: str) -> None:
    hint = "--ca-bundle takes a PEM file with the certificates of the authorities to trust."
    try:
        context = ssl.create_default_context(cafile=bundle)
    except ssl.SSLError:
        raise UsageError(f"{bundle} holds no certificate that can be read.", hint) from None
    except OSError as error:
        raise UsageError(f"Cannot read the certificates in {bundle}: {error.strerror}.", hint) from None
    if not context.cert_store_stats()["x509"]:
        raise UsageError(f"{bundle} holds no certificate.", hint)
