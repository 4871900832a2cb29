# Copyright 2026 the neptune-exporter authors
# SPDX-License-Identifier: Apache-2.0
"""Plugins: strangers come through the same door as we do, found through really installed entry points."""

from __future__ import annotations

import importlib
import sys
import textwrap
from dataclasses import dataclass, fields

import pytest

from neptune_exporter import plugins
from neptune_exporter.errors import MissingExtraError, UsageError
from neptune_exporter.plugins import EXPORTERS, LOADERS, Plugin, available, find, option, public_options


@dataclass(frozen=True)
class StrangeOptions:
    address: str = option("nowhere", "Where it is.", env="STRANGE_ADDRESS", metavar="URL")
    token: str = option("", "The token.", secret=True)
    paths: tuple[str, ...] = option((), "Folders.", flag="--path")
    size: int = option(3, "How big.", choices=("3", "4"))
    plain: float = 0.5


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A distribution of somebody else, as an installer leaves it on disk."""
    (tmp_path / "strange_tracker.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from neptune_exporter.plugins import Plugin

            @dataclass(frozen=True)
            class Options:
                size: int = 3

            class Loader:
                def __init__(self, options):
                    self.options = options

            plugin = Plugin("strange", "A strange tracker.", Options, "strange_tracker:Loader")
            needy = Plugin("needy", "Needs a client.", Options, "strange_impl:Loader", "needy", "no_such_client")
            wrong = object()
        """)
    )
    info = tmp_path / "strange_tracker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-tracker\nVersion: 1.0\n")
    lines = ["strange = strange_tracker:plugin", "needy = strange_tracker:needy", "wrong = strange_tracker:wrong"]
    lines.append("broken = no_such_module:plugin")
    (info / "entry_points.txt").write_text("\n".join(["[neptune_exporter.loaders]", *lines, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield
    sys.modules.pop("strange_tracker", None)
    forget()


def forget():
    importlib.invalidate_caches()
    plugins._entry_points.cache_clear()
    plugins.find.cache_clear()


def test_strangers_are_found(strangers):
    assert {"strange", "needy", "wrong"} <= set(available(LOADERS))
    assert available(LOADERS) == sorted(available(LOADERS))
    assert "strange" not in available(EXPORTERS)
    assert find(LOADERS, "strange").title == "A strange tracker."


def test_looking_imports_nothing(strangers):
    available(LOADERS)
    assert "strange_tracker" not in sys.modules


def test_a_plugin_makes_its_implementation(strangers):
    plugin = find(LOADERS, "strange")
    options = plugin.options(size=4)
    assert plugin.make(options).options is options


def test_a_client_that_is_not_installed(strangers):
    plugin = find(LOADERS, "needy")
    with pytest.raises(MissingExtraError, match="no_such_client") as caught:
        plugin.make(plugin.options())
    assert "neptune-exporter[needy]" in caught.value.hint
    assert "strange_impl" not in sys.modules


def test_what_is_no_plugin(strangers):
    with pytest.raises(UsageError, match="strange_tracker:wrong"):
        find(LOADERS, "wrong")


def test_a_plugin_that_cannot_be_imported(strangers):
    with pytest.raises(UsageError, match="no_such_module") as caught:
        find(LOADERS, "broken")
    assert caught.value.hint


@pytest.mark.parametrize(("group", "kind"), [(EXPORTERS, "exporter"), (LOADERS, "loader")])
def test_an_unknown_name_lists_the_known_ones(group, kind):
    with pytest.raises(UsageError, match=f"no {kind} named 'mlfow'") as caught:
        find(group, "mlfow")
    assert all(name in caught.value.hint for name in available(group))


def test_an_option_says_everything_that_the_command_line_needs():
    by_name = {f.name: f for f in fields(StrangeOptions)}
    assert by_name["address"].metadata == {
        "help": "Where it is.",
        "env": "STRANGE_ADDRESS",
        "metavar": "URL",
        "choices": (),
        "secret": False,
        "flag": None,
    }
    assert by_name["paths"].metadata["flag"] == "--path"
    assert by_name["size"].metadata["choices"] == ("3", "4")
    assert StrangeOptions() == StrangeOptions("nowhere", "", (), 3, 0.5)


def test_secrets_are_never_shown():
    options = StrangeOptions(address="there", token="s3cr3t", paths=("a", "b"))
    assert "s3cr3t" not in repr(options)
    assert "s3cr3t" not in str(public_options(options))
    assert public_options(options) == {"address": "there", "paths": "('a', 'b')"}
    assert public_options(StrangeOptions()) == {}


def test_a_plugin_is_data():
    plugin = Plugin("x", "X.", StrangeOptions, "collections:OrderedDict")
    assert plugin.kinds == ("run",)
    assert type(plugin.make({"a": 1})).__name__ == "OrderedDict"
