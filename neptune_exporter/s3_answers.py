# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""What boto3 raises, told apart: who refuses what, and what is only missing for now."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Meaning = Literal["refused", "no credentials", "no bucket", "no key", "changed", "unreachable", "other"]

_REFUSED = {
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"),
    *("AllAccessDisabled", "AccountProblem", "Forbidden", "401"),
}
_CHANGED = {"PreconditionFailed", "412"}
_MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(_REFUSED, "refused"),
    **dict.fromkeys(_CHANGED, "changed"),
    "NoSuchBucket": "no bucket",
    "NoSuchKey": "no key",
    "NoSuchVersion": "no key",
}


class Answer(NamedTuple):
    """What an error of boto3 means.

    Attributes:
        meaning: in our terms.
        code: S3's error code, "" if it did not answer.
        message: what it, or boto3, says.
    """

    meaning: Meaning
    code: str
    message: str

    @property
    def text(self) -> str:
        """Code and message."""
        return f"{self.code} {self.message}".strip()


def meaning_of(code: str) -> Meaning:
    """What an error code of S3 means."""
    return _MEANINGS.get(code, "other")


def answer_of(error: BaseException, missing: str = "NoSuchKey") -> Answer:
    """What an error of boto3 means; `missing` is what an answer of 404 without more words stands for."""
    from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError, ProfileNotFound

    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ClientError):
        inner = inner.__cause__ or inner.__context__
    if isinstance(inner, ClientError):
        said: Any = inner.response.get("Error", {})
        code = str(said.get("Code", ""))
        code = missing if code in ("404", "NotFound") else code
        return Answer(meaning_of(code), code, str(said.get("Message", "")))
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError, ProfileNotFound)):
        return Answer("no credentials", "", str(error))
    return Answer("unreachable", "", str(error))
