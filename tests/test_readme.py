"""What README shows must work as it stands there."""

import importlib.util
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra

import vae
from vae.common import signals

Compose = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "outputs" / "examples" / "README.md"]

BUILT = ROOT / "outputs" / "site" / "index.html"  # by the command that stands beside its link

RUN, SWEEP = "outputs/runs/DATE/TIME_NAME", "outputs/sweeps/DATE/TIME"
QUICK = ["data=strokes", "data.limit=300", "epochs=1", "figures=none"]
ELSEWHERE = {  # what is typed before there is anything, and what takes longer than a test may
    "python3 -m venv": ".ci/run",
    ".venv/bin/python -m pytest": ".ci/run",
    "pip install": ".ci/run",
    "python scripts/reproduce.py iwae_paper": "tests/scripts/test_reproduce.py",
    "python train.py prior._target_=mypkg.Wide": "test_the_users_own_prior_trains",
}
NEEDS = {"launcher=joblib": "hydra_plugins.hydra_joblib_launcher", "optuna": "optuna", "export.py": "onnxruntime"}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[str]:
    """The lines of all shell blocks without their comments."""
    lines = [line.partition("  #")[0].strip() for block in blocks("bash", text) for line in block.splitlines()]
    return [line for line in lines if line]


def in_text(text: str = README) -> list[str]:
    """The `python …` within sentences and tables."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`(python [^`]*)`", prose.replace("\n", " "))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A user's folder in which all commands are typed, one after another, with photos in it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / "train.py").symlink_to(ROOT / "train.py")
    (folder / "photos").symlink_to(image_folder)
    return folder


@pytest.fixture
def type_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Does what a command does, in this process, where torch has been imported already."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VAE_DATA", str(folder / "data"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the program sets it
    monkeypatch.setattr(Hydra, "format_config_groups", Hydra.format_config_groups)

    def run(command: str) -> None:
        python, program, *arguments = shlex.split(command)
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        try:
            with signals.listening():  # else the program's own listening would last, in later tests too
                runpy.run_path(str(ROOT / program), run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code

    return run


def ready(command: str, folder: Path) -> str:
    """A command with the folders that there are, and made quick."""
    for shown, pattern in ((RUN, "outputs/runs/*/*data=images*"), (SWEEP, "outputs/sweeps/*/*")):
        if shown in command:
            (first, *_) = sorted(folder.glob(pattern))
            command = command.replace(shown, str(first.relative_to(folder)))
    if "resume=" in command or "--help" in command:
        return command
    if "train.py" in command:
        given = [each for each in command.split() if not re.match(r"(data=(mnist|strokes)|epochs=)", each)]
        return " ".join([*given, *(each for each in QUICK if "data=images" not in given or each != QUICK[0])])
    if "compress.py" in command:  # photos have more pixels than digits
        return f"{command.replace('100kB', '1MB')} --epochs 1"
    if "evaluate.py" in command:
        return f"{command} likelihood geometry reconstruction --images 20 --samples 10"
    return command


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_every_command_works(command: str, folder: Path, type_in: Callable[[str], None]) -> None:
    if any(command.startswith(known) for known in ELSEWHERE):
        pytest.skip("run by " + next(where for known, where in ELSEWHERE.items() if command.startswith(known)))
    for word, package in NEEDS.items():
        if word in command and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, of an extra")
    type_in(ready(command, folder))


def single_runs() -> list[tuple[str, str]]:
    """The arguments of every training of one run of the program's own classes, on each page."""
    texts = [(page.name, page.read_text(encoding="utf-8")) for page in PAGES]
    shown = [(name, line) for name, text in texts for line in (*commands(text), *in_text(text))]
    arguments = [(name, line.split("train.py", 1)[1].strip()) for name, line in shown if "train.py" in line]
    return [each for each in arguments if not re.search(r"resume=|mypkg|(^| )-|…|[A-Z]{4}", each[1])]


@pytest.mark.parametrize(("page", "arguments"), single_runs())
def test_every_single_run_composes(page: str, arguments: str, compose: Compose) -> None:
    compose(*shlex.split(arguments))


def test_the_users_own_prior_trains(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (module,) = [block for block in blocks("python") if "class Wide" in block]
    (command,) = [line for block in blocks("bash") for line in block.splitlines() if "mypkg.Wide" in line]
    (tmp_path / "mypkg.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["data=images", f"data.root={image_folder}", "data.channels=1", "epochs=1", "figures=none"]
    vae.train(*command.split()[2:], *small, folder=tmp_path / "run")
    assert "wide prior" in capsys.readouterr().out
    del sys.modules["mypkg"]  # other tests have one of their own


def test_the_library_is_used_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (shown,) = [block for block in blocks("python") if "vae.load" in block]
    names: dict[str, Any] = {}
    exec(shown, names)
    assert names["images"].shape == names["reconstructions"].shape == (64, 1, 28, 28) and names["z"].shape == (64, 2)
    assert names["between"].shape == names["along"].shape == (8, 1, 28, 28) and names["anomalies"].shape == (64,)


def test_the_experiments_figures_are_those_of_the_gallery() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| ours |")]
    names = ("tutorial_2d", "tutorial_3d", "tutorial_correlated", "tutorial_correlated_conv")
    for cell, name in zip(row.split("|")[2:-1], names, strict=True):
        metrics = json.loads((ROOT / "outputs" / "examples" / name / "metrics.json").read_text())
        total, recon, kl = (f"{metrics[f'test/{term}']:.1f}" for term in ("total", "recon", "kl"))
        assert cell.strip() == f"**{total}** = {recon} + {kl}"


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> list[tuple[Path, str]]:
    """Each page with what it links to and shows, except for other sites."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        found += [(page, target) for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda value: value.name if isinstance(value, Path) else None)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if file == BUILT:
        return
    assert file.is_file() and file.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(file.read_text(encoding="utf-8"))


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 250
