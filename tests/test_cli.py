"""The `gfm` command as a user meets it: help, errors, exit codes, and how little it loads."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gfm.cli import app, main
from gfm.errors import GfmError

ROOT = Path(__file__).parents[1]
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Call the command in this process; returns (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["gfm", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_help_lists_every_command_with_what_it_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, monkeypatch, "--help")
    assert code == 0
    for command in app.registered_commands:
        assert command.callback is not None
        sentence = (command.callback.__doc__ or "").strip()
        assert sentence.endswith("."), f"{command.callback.__name__} has no sentence"
        assert "\n" not in sentence
        assert re.search(rf"^  {command.name or command.callback.__name__}\s+\S", out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    code, out, _ = run(capsys, monkeypatch, command, "--help")
    assert code == 0
    assert f"Usage: gfm {command}" in out


def test_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "from gfm.cli import main\n"
        "sys.argv = ['gfm', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = 'torch mlflow pandas prefect numpy matplotlib pydantic dvc lightning rasterio'.split()\n"
        "print('HEAVY', sorted(set(heavy) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert "HEAVY []" in done.stdout


def test_an_error_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "check")
    assert code == 2
    assert out == ""
    assert err == "gfm: params.yaml: no such file; run in a folder that has one, or give --params FILE\n"


def test_an_unknown_parameter_key_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("tile_px:", "tile_size:"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, monkeypatch, "check", "--params", "mine.yaml")
    assert (code, err) == (2, "gfm: mine.yaml: geopile.tile_size: unknown key; did you mean tile_px?\n")


def test_check_says_what_the_file_describes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "check", "--params", str(ROOT / "params.yaml"))
    assert (code, err) == (0, "")
    assert "5 sources, 1 pretraining, 3 tasks x 3 models" in out


def test_an_error_of_many_lines_still_reaches_the_terminal_as_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise GfmError("first\nsecond")

    monkeypatch.setattr("gfm.cli.check.load_params", fail)
    assert run(capsys, monkeypatch, "check")[2] == "gfm: first second\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "models/encoders/.gfm.new/run.json"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # of safetensors
    ],
)
def test_a_full_disk_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr("gfm.cli.check.load_params", fail)
    code, _, err = run(capsys, monkeypatch, "check")
    assert code == 2
    assert "No space left on device" in err and err.endswith("; make room and run the same command again\n")
    assert err.count("\n") == 1


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("gfm.cli.check.load_params", fail)
    monkeypatch.setattr(sys, "argv", ["gfm", "check"])
    with pytest.raises(KeyError):
        main()


def test_an_unknown_command_is_refused_with_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, monkeypatch, "trian")
    assert code == 2
    assert "trian" in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("pretrain", "nope"), "gfm: pretrain has no nope; it has gfm\n"),
        (("finetune", "nope", "gfm"), "gfm: tasks has no nope; it has scenes, buildings, change\n"),
        (("finetune", "scenes", "nope"), "gfm: models has no nope; it has random, teacher, gfm\n"),
        (
            ("predict", "scenes", "nope", "a.tif", "--out", "b"),
            "gfm: models has no nope; it has random, teacher, gfm\n",
        ),
    ],
)
def test_a_name_that_the_parameters_lack_is_refused_before_torch_is_loaded(
    tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = None  # an import of it raises ImportError\n"
        "from gfm.cli import main\n"
        f"sys.argv = ['gfm', *{words!r}, '--params', {str(ROOT / 'params.yaml')!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, line)


def test_check_tells_every_fault_of_the_parameters_a_line_each_and_twenty_at_most(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("tile_px:", "tile_size:").replace("seed: 0", "seed: x"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, monkeypatch, "check", "--params", "mine.yaml")
    assert code == 2 and err.splitlines() == [
        "gfm: mine.yaml: seed = 'x': must be a whole number",
        "gfm: mine.yaml: geopile.tile_size: unknown key; did you mean tile_px?",
    ]
    path.write_text(text + "".join(f"key{number}: 1\n" for number in range(23)), encoding="utf-8")
    lines = run(capsys, monkeypatch, "check", "--params", "mine.yaml")[2].splitlines()
    assert len(lines) == 21 and lines[-1] == "gfm: and 3 more"
