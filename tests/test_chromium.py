"""Where the browser of the tests comes from: named, found, installed, or not there."""

from collections import Counter
from pathlib import Path

import pytest

from kinetograph.tools import checks, chromium
from kinetograph.tools.commands import Trouble


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The one folder of programs of a machine that has none."""
    for variable in ("CI", chromium.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(chromium, "NAMES", ("chromium", "google-chrome"))
    monkeypatch.setattr(chromium.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write(program, *words):
    program.write_text("\n".join(["#!/bin/sh", *words]) + "\n")
    program.chmod(0o755)
    return program


def test_the_variable_comes_first_and_must_name_a_program(programs, monkeypatch):
    write(programs / "chromium")
    monkeypatch.setenv("CHROMIUM", str(write(programs / "another")))
    assert chromium.find() == programs / "another"
    monkeypatch.setenv("CHROMIUM", str(programs / "absent"))
    with pytest.raises(Trouble, match="which is no program: name a Chromium"):
        chromium.find()


def test_without_a_browser_the_stage_is_skipped_and_says_so_in_one_line(programs, capsys):
    installed = programs / "installed"
    write(programs / "apt-get", f"> {installed}")
    assert checks._run_stage("browser", Path("newest"), Path("oldest"), Counter())
    (_, line) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("Skipped: no Chromium on this machine") and not installed.exists()


def test_ci_installs_the_browser_once(programs, monkeypatch):
    log, program = programs / "log", programs / "chromium"
    write(
        programs / "apt-get",
        f'echo "$*" >> {log}',
        f'[ $1 = update ] || {{ echo "#!" > {program}; /bin/chmod +x {program}; }}',
    )
    monkeypatch.setenv("CI", "true")
    assert chromium.prepare() == chromium.prepare() == program
    assert log.read_text() == "update\ninstall -y --no-install-recommends chromium\n"


def test_ci_uses_sudo_where_it_is_not_root_and_says_what_failed(programs, monkeypatch, capsys):
    monkeypatch.setattr(chromium.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "true")
    assert not checks._run_stage("browser", Path("newest"), Path("oldest"), Counter())
    assert "there is no apt-get" in capsys.readouterr().out
    write(programs / "apt-get")
    assert not checks._run_stage("browser", Path("newest"), Path("oldest"), Counter())
    assert "needs root or sudo" in capsys.readouterr().out
    write(programs / "sudo", 'echo "sudo: a password is required: $*"', "exit 1")
    assert not checks._run_stage("browser", Path("newest"), Path("oldest"), Counter())
    said = capsys.readouterr().out
    assert f"a password is required: -n {programs}/apt-get install" in said and "apt-get failed" in said
