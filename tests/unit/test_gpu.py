"""What nvidia-smi says, read: recorded answers of several drivers, and cards by their names."""

from __future__ import annotations

import json
from pathlib import Path

import engines_env
import pytest

from smmf_core.cli.main import main
from smmf_core.environments import gpu
from smmf_core.environments.gpu import Gpu, of_name, parse_cuda, parse_rows

Capture = pytest.CaptureFixture[str]

H200 = "NVIDIA H200, 143771, 570.133.20, 9.0\n"
TWO = (
    "Tesla V100-SXM2-32GB, 32768, 535.183.01, 7.0\nNVIDIA A100-SXM4-80GB, 81920, 535.183.01, 8.0\n"
)
OLD_DRIVER = "GeForce RTX 3090, 24268, 460.91.03\n"  # does not know compute_cap
ODD = "NVIDIA Thor, [N/A], 580.00, 11.0\nNVIDIA GB10, [N/A], 580.95.05, 12.1\n"
HEADER_12 = """\
Thu Nov  7 09:12:33 2024
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.183.01             Driver Version: 535.183.01   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
"""
HEADER_13 = "| NVIDIA-SMI 590.10    KMD Version: 590.10    CUDA UMD Version: 13.1     |\n"


def test_rows_become_cards() -> None:
    assert parse_rows(H200) == (Gpu("NVIDIA H200", 143771, "570.133.20", 90),)
    assert [card.generation for card in parse_rows(TWO)] == ["Volta sm70", "Ampere sm80"]


def test_a_driver_without_capabilities_is_read_by_the_cards_name() -> None:
    (card,) = parse_rows(OLD_DRIVER)
    assert (card.capability, card.generation, card.memory_mib) == (86, "Ampere sm86", 24268)


def test_memory_that_is_shared_with_the_system_is_unknown() -> None:
    assert [card.memory_mib for card in parse_rows(ODD)] == [0, 0]


@pytest.mark.parametrize("text", ["", "\n", "No devices were found\n"])
def test_no_card_is_none(text: str) -> None:
    assert parse_rows(text) == ()


def test_the_drivers_cuda_version() -> None:
    assert parse_cuda(HEADER_12) == "12.2"
    assert parse_cuda(HEADER_13) == "13.1"
    assert parse_cuda("| CUDA Version: N/A |") == ""


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("Tesla V100-PCIE-16GB", 70),
        ("NVIDIA TITAN V", 70),
        ("Tesla T4", 75),
        ("NVIDIA GeForce RTX 2080 Ti", 75),
        ("NVIDIA A100 80GB PCIe", 80),
        ("NVIDIA A10G", 86),
        ("NVIDIA GeForce RTX 3060", 86),
        ("NVIDIA RTX A6000", 86),
        ("NVIDIA GeForce RTX 4090", 89),
        ("NVIDIA L4", 89),
        ("NVIDIA L40S", 89),
        ("NVIDIA RTX 6000 Ada Generation", 89),
        ("NVIDIA H100 80GB HBM3", 90),
        ("NVIDIA GH200 480GB", 90),
        ("NVIDIA B200", 100),
        ("NVIDIA GeForce RTX 5090", 120),
        ("NVIDIA GeForce GTX 1080 Ti", 61),
        ("Tesla P100-SXM2-16GB", 60),
        ("Something Else 9000", 0),
    ],
)
def test_cards_by_name(name: str, capability: int) -> None:
    assert of_name(name) == capability


def test_generations_beyond_the_list_are_named_as_such() -> None:
    assert Gpu("x", 0, "", 150).generation == "a later generation sm150"
    assert Gpu("x", 0, "", 0).generation == "unknown generation"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that has an nvidia-smi with recorded answers, and no engine installed."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$1" in --query*) cat "${0%/*}/rows";; *) cat "${0%/*}/table";; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SMMF_ENGINES_DIR", str(tmp_path / "engines"))
    (tmp_path / "rows").write_text(TWO)
    (tmp_path / "table").write_text(HEADER_12)
    return tmp_path


def test_what_nvidia_smi_says_is_found(machine: Path) -> None:
    found = gpu.find()
    assert [card.capability for card in found.gpus] == [70, 80]
    assert found.cuda == "12.2"


def test_doctor_names_cards_and_what_to_install(machine: Path, capsys: Capture) -> None:
    (machine / "rows").write_text(H200)
    (machine / "table").write_text(HEADER_13)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA H200, 140.4 GiB, Hopper sm90, driver 570.133.20 (CUDA 13.1)" in out
    assert "not installed: run `smmf engines install vllm --cuda 13.0`" in out


def test_doctor_says_when_an_engine_leaves_the_gpu_idle(machine: Path, capsys: Capture) -> None:
    engines_env.require("mlx")
    (machine / "rows").write_text(H200)
    (machine / "table").write_text(HEADER_13)
    assert main(["doctor", "--json"]) == 0
    rows = {row["check"]: row["detail"] for row in json.loads(capsys.readouterr().out)}
    expected = "; it does not use the GPU: run `smmf engines install mlx --cuda 13.0`"
    assert rows["engine mlx"].endswith(expected)


def test_doctor_offers_the_cpu_where_no_build_fits(machine: Path, capsys: Capture) -> None:
    assert main(["doctor"]) == 0
    assert (
        "it has no build for this GPU, for the CPU run `smmf engines install vllm --cpu`"
        in capsys.readouterr().out
    )


def test_no_nvidia_smi_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gpu.find()
    assert found.gpus == ()
    assert found.other
