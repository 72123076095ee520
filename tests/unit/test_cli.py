"""The command line without a server: use, exit codes, one-line errors, check, doctor, tables."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_admin import answering, events_answer, json_answer
from safetensors.numpy import save_file

from smmf_core import __version__
from smmf_core.cli import orphans
from smmf_core.cli.http import Endpoint
from smmf_core.cli.main import VERBS, main
from smmf_core.cli.table import cell, duration, size, table
from smmf_core.controller.process import start_time

MINIMAL = '[model]\nname = "m"\nbackend = "echo"\n'
Capture = pytest.CaptureFixture[str]


def delta(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


@pytest.fixture
def closed_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- use and exit codes ---------------------------------------------------------------------------


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"smmf {__version__}\n"


def test_no_verb_is_wrong_use(capsys: Capture) -> None:
    assert main([]) == 2
    assert "verbs" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["ps", "--nonsense"], ["show"], ["stop"]])
def test_wrong_use_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_use_is_told_with_the_verb_that_helps(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "create", "--monthly-tokens", "0"])
    told = capsys.readouterr().err
    assert told.startswith("smmf keys create: --monthly-tokens: '0' is not a whole number from 1")
    assert told.endswith("; `smmf keys create --help` tells its use\n")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(verb: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"smmf {verb}" in capsys.readouterr().out


def test_help_names_all_verbs_and_loads_none_of_them() -> None:
    code = (
        "import sys; from smmf_core.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('smmf_core.cli.', 'numpy', 'msgspec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, modules = done.stdout.splitlines()
    assert all(any(line.split()[:1] == [verb] for line in text) for verb in VERBS)
    assert modules == "['smmf_core.cli.main']"


@pytest.mark.parametrize(
    "arguments", [["ps"], ["list"], ["show", "m"], ["stop", "m"], ["chat", "m", "hi"], ["usage"]]
)
def test_no_server_is_one_line_on_stderr(
    arguments: list[str], closed_url: str, capsys: Capture
) -> None:
    assert main([*arguments, "--url", closed_url]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"smmf: no server at {closed_url}: start one with `smmf serve`\n"


def test_flags_may_stand_before_the_verb(closed_url: str, capsys: Capture) -> None:
    assert main(["--url", closed_url, "--json", "ps"]) == 1
    assert closed_url in capsys.readouterr().err


def test_the_environment_names_server_and_key(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with answering(json_answer([])) as (url, asked):
        monkeypatch.setenv("SMMF_URL", url)
        monkeypatch.setenv("SMMF_API_KEY", "sk-1")
        assert main(["list", "--json"]) == 0
    assert asked[0].startswith(b"GET /admin/v1/models HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer sk-1\r\n" in asked[0]
    assert json.loads(capsys.readouterr().out) == []


def test_the_server_s_error_is_told_in_its_words(capsys: Capture) -> None:
    refusal = json_answer({"error": {"message": "no model named x"}}, "404 Not Found")
    with answering(refusal) as (url, _):
        assert main(["show", "x", "--url", url]) == 1
    assert capsys.readouterr().err == "smmf: no model named x\n"


def test_the_inference_port_is_not_the_admin_api(capsys: Capture) -> None:
    refusal = {"error": {"message": "Invalid URL (GET /admin/v1/models)"}}
    with answering(json_answer(refusal, "404 Not Found")) as (url, _):
        assert main(["list", "--url", url]) == 1
    told = f"smmf: {url} is not the admin API, which --url and SMMF_URL name\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none(url: str, capsys: Capture) -> None:
    assert main(["ps", "--url", url]) == 1
    assert "smmf: not a" in capsys.readouterr().err


def test_something_else_that_listens_there(capsys: Capture) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>") as (url, _):
        assert main(["ps", "--url", url]) == 1
    assert "does not speak this API" in capsys.readouterr().err


# --- chat -----------------------------------------------------------------------------------------


def test_chat_streams_the_answer(capsys: Capture) -> None:
    with (
        answering(events_answer(delta("Hel"), delta("lo"), {"choices": []})) as (inference, asked),
        answering(json_answer({"inference_url": inference})) as (url, _),
    ):
        assert main(["chat", "m", "hi", "--system", "be kind", "--url", url]) == 0
    assert capsys.readouterr().out == "Hello\n"
    body = json.loads(asked[0].partition(b"\r\n\r\n")[2])
    assert body == {
        "model": "m",
        "stream": True,
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
        ],
    }


def test_chat_takes_the_prompt_from_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a file"))
    with (
        answering(events_answer(delta("ok"))) as (inference, asked),
        answering(json_answer({"inference_url": inference})) as (url, _),
    ):
        assert main(["chat", "m", "--url", url]) == 0
    assert b"from a file" in asked[0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (events_answer(delta("a"), {"error": {"message": "worker lost"}}), "worker lost"),
        (events_answer(delta("a"), end=b""), "the stream ended before its end was said"),
    ],
)
def test_a_stream_that_fails_is_a_failure(answer: bytes, message: str, capsys: Capture) -> None:
    with (
        answering(answer) as (inference, _),
        answering(json_answer({"inference_url": inference})) as (url, _),
    ):
        assert main(["chat", "m", "hi", "--url", url]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("a\n", f"smmf: {message}\n")


def test_chat_with_an_unknown_model_is_told_the_nearest(capsys: Capture) -> None:
    refusal = json_answer({"error": {"message": "There is no model 'lama'."}}, "404 Not Found")
    models = json_answer([{"name": "llama"}])
    with answering(refusal) as (inference, _):
        health = json_answer({"inference_url": inference})
        with answering(health, models) as (url, _):
            assert main(["chat", "lama", "hi", "--url", url]) == 1
    wanted = "smmf: There is no model 'lama'; did you mean 'llama'?\n"
    assert capsys.readouterr().err == wanted


def test_https_and_bare_hosts_are_understood() -> None:
    assert Endpoint("https://host").url == "https://host"
    assert Endpoint("host:8001").url == "http://host:8001"


# --- check ----------------------------------------------------------------------------------------


def test_check_finds_nothing_wrong(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.toml").write_text(MINIMAL)
    (tmp_path / "smmf.toml").write_text("[server]\nport = 1\n")
    assert main(["check", str(tmp_path / "m.toml"), str(tmp_path / "smmf.toml")]) == 0
    assert "m.toml: m: ok" in capsys.readouterr().out


def test_check_names_the_problems_of_all_files(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.toml").write_text(MINIMAL + "nam = 1\n")
    (tmp_path / "smmf.toml").write_text("[server]\nprt = 1\n")
    files = [str(tmp_path / "m.toml"), str(tmp_path / "smmf.toml"), str(tmp_path / "none.toml")]
    assert main(["check", *files]) == 1
    err = capsys.readouterr().err
    assert f"{files[0]}:4: [model] nam: unknown key; did you mean 'name'?\n" in err
    assert f"{files[1]}:2: [server] prt: unknown key; did you mean 'port'?\n" in err
    assert f"{files[2]}: no such file or directory\n" in err


def test_check_as_json(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.toml").write_text(MINIMAL + "[engine]\ntoken = 1\n")
    assert main(["check", "--json", str(tmp_path / "m.toml")]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["line"] == 5
    assert problem["kind"] == "unknown"


def test_check_estimates_memory_as_the_backend_computes(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"w": np.zeros((1024, 512), np.float16)}, folder / "model.safetensors")
    weights = 1024 * 512
    wanted = {
        "reference": ("", 4 * weights),
        "transformers": ('dtype = "float32"', 4 * weights),
        "mlx": ('dtype = "bfloat16"', 2 * weights),
        "vllm": ("load_in_4bit = true\n[engine]\nkv_cache_memory_bytes = 99", weights // 2 + 99),
    }
    for backend, (line, need) in wanted.items():
        file = tmp_path / f"local-{backend}.toml"
        file.write_text(
            f'[model]\nname = "tiny"\nbackend = "{backend}"\npath = "tiny"\n'
            f"[optimization]\n{line}\n"
        )
        assert main(["check", "--json", str(file)]) == 0
        report = json.loads(capsys.readouterr().out)
        (row,) = report["models"]
        assert (row["name"], row["memory_bytes"]) == ("tiny", need)
    assert report["available_bytes"] > 0
    assert main(["check", str(tmp_path / "local-reference.toml")]) == 0
    assert "2 MiB for 1 replica(s) fits" in capsys.readouterr().out


# --- doctor, tables, orphans ----------------------------------------------------------------------


def test_doctor_reports_what_works(capsys: Capture) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert findings["native _ring"]["status"] == "ok"
    assert findings["engine echo"]["status"] == "ok"
    assert findings["memfd"]["status"] == "ok"
    assert findings["python"]["detail"].endswith(sys.executable)


def test_tables_align_text_left_and_numbers_right() -> None:
    assert table(("NAME", "N"), [("a", 5), ("long", 10)]) == "NAME    N\na       5\nlong   10"
    assert table(("NAME",), []) == "NAME"


def test_cells() -> None:
    values = [None, "", [], True, 1.25, ["a", 2], {"k": 1}, 7]
    assert [cell(value) for value in values] == ["-", "-", "-", "yes", "1.2", "a, 2", "k=1", "7"]
    assert [size(n) for n in (0, 2048, 5 * 2**20, 3 * 2**30)] == [
        "0 B",
        "2 KiB",
        "5 MiB",
        "3.0 GiB",
    ]
    assert [duration(s) for s in (0.4, 59, 65, 3725)] == ["0s", "59s", "1m 05s", "1h 02m"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def _write_children(folder: Path, pid: int, starttime: int | None) -> None:
    child = {"role": "worker", "id": 0, "incarnation": 1, "pid": pid, "starttime": starttime}
    (folder / "children.json").write_text(json.dumps([child]))


def test_orphans_are_ended_when_they_are_verified(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    _write_children(tmp_path, sleeper.pid, start_time(sleeper.pid))
    assert orphans.end(tmp_path, force=True, limit_s=30) == 1
    assert sleeper.wait(timeout=30) == -signal.SIGKILL


def test_a_pid_that_is_another_process_now_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    _write_children(tmp_path, sleeper.pid, 1)
    assert orphans.end(tmp_path, force=True, limit_s=0) == 0
    pidfd = os.pidfd_open(sleeper.pid)
    assert select.select([pidfd], [], [], 0)[0] == []
    os.close(pidfd)


@pytest.mark.parametrize("content", [None, "", "{}", "[1"])
def test_no_list_of_children_is_no_children(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "children.json").write_text(content)
    assert orphans.end(tmp_path, force=True, limit_s=0) == 0


_CONTROLLER = (
    "import os, signal, sys\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    "print('ready', flush=True)\n"
    "signal.sigwait([signal.SIGTERM])\n"
    "os.kill(int(sys.argv[1]), signal.SIGUSR1)\n"
)


def test_a_living_controller_ends_its_children_itself(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """Its signal, not ours, is what the worker dies of."""
    command = [sys.executable, "-c", _CONTROLLER, str(sleeper.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        controller.stdout.readline()
        pids = {"worker": sleeper.pid, "controller": controller.pid}
        rows = [
            {"role": role, "pid": pid, "starttime": start_time(pid)} for role, pid in pids.items()
        ]
        (tmp_path / "children.json").write_text(json.dumps(rows))
        assert orphans.end(tmp_path, force=False, limit_s=30) == 2
        assert controller.wait(timeout=30) == 0
        assert sleeper.wait(timeout=30) == -signal.SIGUSR1
