"""The `smmf` command as its users run it: a process of its own, against a test's server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from server import Server

WAIT_S = 60


def begin(server: Server, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Started, not waited for."""
    command = [sys.executable, "-m", "smmf_core.cli.main", *arguments]
    return subprocess.Popen(
        command,
        env=server.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def smmf(
    server: Server, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "smmf_core.cli.main", *arguments]
    return subprocess.run(
        command,
        env=server.environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def said(server: Server, *arguments: str, stdin: str | None = None) -> str:
    """What it printed; it must succeed."""
    done = smmf(server, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server: Server, *arguments: str) -> str:
    """Its one line on stderr; it must fail with status 1, and print nothing else."""
    done = smmf(server, *arguments)
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert done.stderr.startswith("smmf: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("smmf: ").rstrip("\n")


def read(server: Server, *arguments: str) -> Any:
    return json.loads(said(server, *arguments, "--json"))
