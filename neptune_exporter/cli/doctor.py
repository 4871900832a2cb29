# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""`neptune-exporter doctor`."""

from __future__ import annotations

import click

from neptune_exporter.cli import console
from neptune_exporter.errors import EXIT_INCOMPLETE

_MARKS = {"good": "ok  ", "note": "--  ", "bad": "!!  "}


@click.command()
@click.option("--offline", is_flag=True, help="Ask no server.")
@click.option("--ca-bundle", default="", metavar="FILE", help="Trust the certificates in this PEM file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def doctor(offline: bool, ca_bundle: str, as_json: bool) -> int:
    """Say which clients and trackers are installed, which settings are found, and whether dual logging would start.

    Asks every endpoint that is configured whether it answers and takes the key. Secrets are never shown. Exit code 3
    if something stands in the way.
    """
    from neptune_exporter.certificates import trust
    from neptune_exporter.mirror.doctor import examine

    trust(ca_bundle)
    findings = examine(ask=not offline)
    if as_json:
        console.print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            remedy = f" {finding.remedy}" if finding.remedy else ""
            console.say(f"{_MARKS[finding.grade]}{finding.subject}: {finding.text}{remedy}")
    return EXIT_INCOMPLETE if any(finding.grade == "bad" for finding in findings) else 0
