"""The suite still measures: its cheapest subjects at a tiny size, whose figures say nothing."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import report
from measure import Result, alternate, at_least, at_most

BENCH = Path(__file__).with_name("bench.py")
SIZE = ("--size", "0.015625", "--rounds", "1")  # 16 MiB
EXPECTED = {
    "save": {
        "figures": {"floor, one stream", "floor, two streams", "library", "torch.save + fsync", "client.save"},
        "ratios": {"throughput: library / floor", "time: client.save / torch.save + fsync"},
    },
    "copies": {"figures": {"save: server", "restore: client", "floor, restore: client"}, "ratios": set()},
}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing"], "'nothing' is none of save, "),
        (["save", "--size", "0"], "0 is no size"),
        (["save", "--size", "-1"], "-1 is no size"),
        (["save", "--size", "nan"], "nan is no size"),
        (["save", "--size", "inf"], "inf is no size"),
        (["save", "--size", "big"], "big is no size"),
        (["save", "--rounds", "0"], "at least one round"),
        (["save", "--rounds", "x"], "at least one round"),
        (["save", "--rest", "-1"], "-1: seconds, from 0 to 3600"),
        (["save", "--rest", "nan"], "nan: seconds, from 0 to 3600"),
        (["save", "--dir", "/nowhere"], "/nowhere is no folder"),
        (["save", "--dir", "/etc/passwd"], "/etc/passwd is no folder"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_measured(words, why, tmp_path):
    done = subprocess.run([sys.executable, BENCH, *words, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2
    assert why in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", ["/proc", "/proc/out"])
def test_results_that_cannot_be_kept_are_not_measured(folder):
    done = subprocess.run([sys.executable, BENCH, "save", "--out", folder], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"no results can be written to {folder}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_when_it_is_ended_its_servers_end_and_its_files_go(tmp_path):
    words = ["save", "--size", "1", "--dir", tmp_path, "--out", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, BENCH, *words], stderr=subprocess.PIPE, text=True)
    while not (addresses := list(tmp_path.glob("ckpt-bench-*/*.address"))):  # a server runs
        assert process.poll() is None
        time.sleep(0.01)
    host, port = addresses[0].read_text().split(":")
    process.terminate()
    errors = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert os.listdir(tmp_path) == ["out"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Where the results are."""
    folder, scratch = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("dir")
    done = subprocess.run(
        [sys.executable, BENCH, *EXPECTED, *SIZE, "--dir", scratch, "--out", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for word in (
        "1 round, alternating",
        "Goals",
        "library",
        "missed",
    ):  # a restore's copy into the tensors is one too many
        assert word in done.stdout
    assert os.listdir(scratch) == []
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_leaves_json(out, name):
    result = json.loads((out / f"{name}.json").read_text())
    for part, names in EXPECTED[name].items():
        assert names <= result[part].keys()
    for figure in (*result["figures"].values(), *result["ratios"].values()):
        assert figure["min"] <= figure["median"] <= figure["max"]
        assert len(figure["values"]) == 1
    assert {"size_gib", "rounds", "cores", "processor", "file_system", "commit", "date"} <= result["setting"].keys()


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is installed by ./dev bench")
def test_leaves_a_plot(out, name):
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_lists_what_there_is():
    done = subprocess.run([sys.executable, BENCH, "--list"], capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {
        *EXPECTED,
        "peers",
        "stored",
        "index",
        "trainers",
        "memory",
        "pytorch",
    }


def test_sides_take_turns():
    """Each once a round, in the other order every second round; the first round does not count."""
    called, result = [], Result("turns")

    def side(name, seconds):
        def work():
            called.append(name)
            result.add(f"{name}: more", len(called), "")
            return seconds

        return work

    setting = types.SimpleNamespace(rounds=2, rest_s=0)
    alternate(result, setting, {"a": side("a", 1.0), "b": side("b", 2.0)})
    assert called == ["b", "a", "a", "b", "b", "a"]
    assert {name: figure.values for name, figure in result.figures.items()} == {
        "a": [1.0, 1.0], "a: more": [3, 6], "b": [2.0, 2.0], "b: more": [4, 5]}  # fmt: skip


def test_ratios_go_round_by_round():
    result = Result("ratios")
    for a, b, c in ((1.0, 4.0, 8.0), (2.0, 2.0, 1.0), (3.0, 9.0, 9.0)):
        for name, value in (("a", a), ("b", b), ("c", c)):
            result.add(name, value)
    result.ratio("a / b", "a", "b", at_most(0.5))
    result.least("b or c", ["b", "c"])
    result.ratio("least of b and c / a", "b or c", "a", at_least(4))
    result.ratio("of what was not measured", "a", "missing")
    assert {name: figure.values for name, figure in result.ratios.items()} == {
        "a / b": [1 / 4, 1.0, 1 / 3], "least of b and c / a": [4.0, 0.5, 3.0]}  # fmt: skip
    assert [figure.as_json()["met"] for figure in result.ratios.values()] == [True, False]


def test_fills_a_page(tmp_path):
    """What was measured is replaced, the rest stays."""
    result = Result("A title")
    result.add("a side", 1.5)
    result.add("memory", 300, "MiB", at_most(256))
    result.note("a note")
    setting = {"size_gib": 1, "rounds": 5, "rest_s": 4.0, "cores": 2, "processor": "p", "file_system": "ext4"}
    setting |= {"commit": "c", "date": "2026-01-01T00:00:00"}
    results = {"save": {"setting": setting, **result.as_json()}}
    page = tmp_path / "page.md"
    old = "before\n<!-- bench {0} -->\nold {0}\n<!-- end -->\nafter\n"
    page.write_text("before\n<!-- bench goals -->\n<!-- end -->\nafter\n" + old.format("save") + old.format("other"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/save.png").write_text("a picture")
    report.fill(page, results, tmp_path / "out")
    text = page.read_text()
    assert "old save" not in text
    assert old.format("other") in text
    assert text.count("before") == text.count("after") == text.count("<!-- end -->") == 3
    assert "| save: memory, MiB | 300 | 300 | 300 | ≤ 256: missed |\n<!-- end -->" in text
    assert "| a side, s | 1.500 | 1.500 | 1.500 |  |" in text
    assert "1 GiB, 5 rounds, alternating with 4 s of rest; 2 cores" in text
    assert "A note." in text and "![A title](plots/save.png)" in text
    assert (tmp_path / "plots/save.png").read_text() == "a picture"
    report.fill(page, {"other": results["save"]}, tmp_path / "out")
    assert "| save: memory, MiB |" in page.read_text(), "goals of what was not measured now stay"


def test_a_page_is_not_filled_with_nothing(tmp_path):
    done = subprocess.run([sys.executable, BENCH, "--docs", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"there are no results in {tmp_path}" in done.stderr
