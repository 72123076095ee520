"""Verbs of models and instances without a server: what they ask, what they say, how they fail."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_admin import answering, json_answer

from smmf_core.cli import completion, keys
from smmf_core.cli import main as entry
from smmf_core.cli.bars import Bars
from smmf_core.cli.debug import layout
from smmf_core.cli.main import main
from smmf_core.cli.table import show_table

Capture = pytest.CaptureFixture[str]
DONE = json_answer({"name": "m", "message": "done"})


def not_found(message: str) -> bytes:
    return json_answer({"error": {"message": message}}, "404 Not Found")


def asked_for(request: bytes) -> tuple[str, Any]:
    """(method and path, body)"""
    head, _, body = request.partition(b"\r\n\r\n")
    return head.split(b" HTTP")[0].decode(), json.loads(body) if body else None


@pytest.fixture
def closed_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["start", "m"], "POST /admin/v1/models/m:start", {}),
        (["start", "m", "--replicas", "3"], "POST /admin/v1/models/m:start", {"replicas": 3}),
        (["start", "m", "--no-wait"], "POST /admin/v1/models/m:start", {"wait": False}),
        (["stop", "m"], "POST /admin/v1/models/m:stop", {"force": False, "timeout_s": None}),
        (
            ["stop", "--force", "m", "--timeout", "2"],
            "POST /admin/v1/models/m:stop",
            {"force": True, "timeout_s": 2.0},
        ),
        (["restart", "org/m"], "POST /admin/v1/models/org%2Fm:restart", {}),
        (["scale", "m", "2"], "POST /admin/v1/models/m:scale", {"replicas": 2}),
        (["online", "m-0"], "POST /admin/v1/instances/m-0:online", {}),
        (["offline", "m-0"], "POST /admin/v1/instances/m-0:offline", {}),
        (["pin", "m"], "POST /admin/v1/models/m:pin", {}),
        (["unpin", "m"], "POST /admin/v1/models/m:unpin", {}),
        (["rm", "m"], "DELETE /admin/v1/models/m", None),
        (["alias", "x", "m"], "PUT /admin/v1/aliases/x", {"model": "m"}),
        (["alias", "x", "--rm"], "DELETE /admin/v1/aliases/x", None),
        (["reload"], "POST /admin/v1/reload", {}),
    ],
)
def test_a_verb_asks_and_says_what_the_server_says(
    arguments: list[str], path: str, body: Any, capsys: Capture
) -> None:
    with answering(DONE) as (url, asked):
        assert main([*arguments, "--url", url]) == 0
    assert asked_for(asked[0]) == (path, body)
    assert capsys.readouterr().out == "done\n"


def test_a_verb_gives_programs_all_of_the_answer(capsys: Capture) -> None:
    with answering(DONE) as (url, _):
        assert main(["--url", url, "--json", "start", "m"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "m", "message": "done"}


def test_what_is_no_model_may_be_an_instance(capsys: Capture) -> None:
    with answering(not_found("no model named m-0"), DONE) as (url, asked):
        assert main(["restart", "m-0", "--url", url]) == 0
    assert asked_for(asked[1])[0] == "POST /admin/v1/instances/m-0:restart"


def test_what_is_neither_is_told_the_nearest(capsys: Capture) -> None:
    models, instances = json_answer([{"name": "llama"}]), json_answer([{"id": "llama-0"}])
    with answering(not_found("x"), not_found("y"), models, instances) as (url, _):
        assert main(["stop", "lama", "--url", url]) == 1
    wanted = "smmf: no model or instance named lama; did you mean 'llama'?\n"
    assert capsys.readouterr().err == wanted


def test_another_refusal_is_not_tried_on_an_instance(capsys: Capture) -> None:
    refusal = json_answer({"error": {"message": "m is failed: why"}}, "503 Service Unavailable")
    with answering(refusal) as (url, asked):
        assert main(["start", "m", "--url", url]) == 1
    assert len(asked) == 1
    assert capsys.readouterr().err == "smmf: m is failed: why\n"


def test_a_wrong_verb_is_wrong_use(capsys: Capture) -> None:
    assert main(["strat", "m"]) == 2
    assert capsys.readouterr().err == "smmf: no verb 'strat'; did you mean 'start'?\n"


def test_add_names_the_file_to_a_server_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with answering(DONE) as (url, asked):
        assert main(["add", "m.toml", "--url", url]) == 0
    assert asked_for(asked[0]) == (
        "POST /admin/v1/models",
        {"path": str(tmp_path / "m.toml"), "wait": True},
    )


def test_aliases_are_listed(capsys: Capture) -> None:
    with answering(json_answer([{"alias": "x", "model": "m"}])) as (url, _):
        assert main(["alias", "--url", url]) == 0
    assert capsys.readouterr().out == "ALIAS   MODEL\nx       m\n"


def test_an_alias_without_its_model_is_wrong_use(closed_url: str, capsys: Capture) -> None:
    assert main(["alias", "x", "--url", closed_url]) == 2
    assert "smmf alias NAME MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["start", "m", "--replicas", "-1"], "'-1' is not a whole number from 1 on"),
        (["start", "m", "--replicas", "0"], "'0' is not a whole number from 1 on"),
        (["scale", "m", "-1"], "'-1' is not a whole number from 0 on"),
        (["scale", "m", "two"], "'two' is not a whole number from 0 on"),
        (["stop", "m", "--timeout", "-1"], "'-1' is not a number of seconds"),
        (["stop", "m", "--timeout", "nan"], "'nan' is not a number of seconds"),
        (["events", "-n", "-1"], "'-1' is not a whole number from 0 on"),
        (["logs", "-n", "-1"], "'-1' is not a whole number from 0 on"),
    ],
)
def test_numbers_that_make_no_sense_are_wrong_use(
    arguments: list[str], complaint: str, closed_url: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--url", closed_url])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_no_key_is_told_how_to_give_one(capsys: Capture) -> None:
    refusal = json_answer({"error": {"message": "Incorrect."}}, "401 Unauthorized")
    with answering(refusal) as (url, _):
        assert main(["list", "--url", url]) == 1
    assert capsys.readouterr().err == "smmf: Incorrect; SMMF_API_KEY names the key\n"


def test_a_role_that_is_none(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["start", "nothing", "-c", "x.toml"])
    assert ended.value.code == 2
    assert "'controller', 'worker', 'apiserver'" in capsys.readouterr().err


def test_quiet_prints_names_only(capsys: Capture) -> None:
    with answering(json_answer([{"name": "a"}, {"name": "b"}])) as (url, _):
        assert main(["list", "-q", "--url", url]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_ps_tells_until_and_progress_as_people_read_them(capsys: Capture) -> None:
    rows = [
        {"id": "a-0", "state": "ready", "until": 245, "progress": None},
        {"id": "b-0", "state": "loading", "until": None, "progress": 0.42},
    ]
    with answering(json_answer(rows)) as (url, _):
        assert main(["ps", "--url", url]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("4m 05s")
    assert second.split()[2:4] == ["loading", "42%"]
    assert second.endswith("never")


def test_a_verb_shows_bars_on_a_terminal_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("smmf_core.cli.waiting.QUIET_S", 0)
    row = {"id": "m-0", "state": "loading", "phase": "load", "progress": 0.5}
    bars = Bars(terminal)
    bars.show([row])
    assert "m-0" in terminal.getvalue()
    assert "50%  load" in terminal.getvalue()
    bars.close()


def test_on_a_terminal_tables_are_rich_s(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show_table(("NAME", "STATE"), [("m[0]", "ready")])
    assert "m[0]" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_a_table_that_is_too_wide_stands_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for width, gap in ((38, 3), (39, 2)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        show_table(("A", "B"), [("a" * width, "b" * 39)])
        assert f"{'a' * width}{' ' * gap}{'b' * 39}" in terminal.getvalue()


def test_keys_are_listed_with_the_limits_that_they_have(capsys: Capture) -> None:
    row = {"id": "k1", "models": [], "requests_per_minute": 60, "monthly_tokens": 5000}
    none: dict[str, Any] = dict.fromkeys(keys.COLUMNS)
    with answering(json_answer({}), json_answer([none | row, none | {"id": "k2"}])) as (url, _):
        assert main(["keys", "list", "--url", url]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert "60 req/min, 5000 tok/month" in first
    assert second.split() == ["k2", "-", "-", "-", "all", "-", "-", "-"]


def test_debug_lays_out_values_before_blocks() -> None:
    facts = {
        "stack": "line 1\nline 2\n",
        "steps": 7,
        "slots": {"free": 3},
        "errors": ["one", "two"],
        "rings": [{"router": 0, "used": 5}, {"router": 1, "used": 17}],
        "threads": [{"name": "a", "stack": "x\ny"}, {"name": "b", "stack": "z"}],
    }
    assert layout(facts).split("\n\n") == [
        "steps  7",
        "stack:\n  line 1\n  line 2",
        "slots:\n  free  3",
        "errors:\n  one\n  two",
        "rings:\n  ROUTER   USED\n       0      5\n       1     17",
        "threads:\n  name  a",
        "  stack:\n    x\n    y",
        "  name   b\n  stack  z",
    ]


def test_bash_completes_verbs() -> None:
    word = (
        "\nCOMP_WORDS=(smmf sho); COMP_CWORD=1; COMP_LINE='smmf sho'; COMP_POINT=8\n"
        "_shtab_smmf\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    script = completion.script("bash") + word
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["show"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_gets_every_verb(shell: str, capsys: Capture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in entry.VERBS)
    assert "smmf list --quiet" in script
