import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made_runs import autoencoder, run, write
from PIL import Image

from vae.runs import card
from vae.runs.record import recorded
from vae.runs.results import find_runs

EVALUATED = {"epoch": 2, "step": 7, "test/nll": 98.76543, "test/nll_error": 0.02, "test/nll_images": 1000}
ALONE = {"meta", "img"}  # tags that nothing closes


class Page(HTMLParser):
    """What is on a page; refuses tags that are not closed in order, and whatever would ask for something."""

    def __init__(self, file: Path):
        super().__init__()
        self.opened: list[str] = []
        self.images: dict[str, bytes] = {}
        self.links: list[str] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert not self.opened

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert tag not in ("script", "link", "iframe", "object", "base")
        if tag not in ALONE:
            self.opened.append(tag)
        if tag == "img":
            kind, content = values["src"].split(",")
            assert kind in ("data:image/png;base64", "data:image/gif;base64")
            self.images[f"{values['alt']}.{kind[11:14]}"] = base64.b64decode(content)
        elif "src" in values or "href" in values:
            self.links.append(unquote(values["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.opened.pop()

    def handle_data(self, data: str) -> None:
        if self.opened[-1:] == ["style"]:
            assert "url(" not in data and "@import" not in data
        else:
            self.text += data + "\n"


def finished(folder: Path) -> Path:
    content = run(str(folder), 104.5, noise=0.25, beta=4.0)
    parts = {f"train/{term}": value for term, value in (("total", 103.0), ("recon", 98.0), ("kl", 5.0))}
    ledger = {"ledger/kl": "4 × KL(q ‖ p) <exact>"}
    content.metrics.update({**parts, **ledger, "epoch": 2, "epochs": 3, "parameters": 1000})
    write(folder, content)
    for name, kind in (("latent/manifold", "png"), ("curves/losses", "png"), ("latent/evolution", "gif")):
        (file := folder / "figures" / f"{name}.{kind}").parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1200, 800), "teal").save(file)
    (folder / "history.csv").write_text("epoch,seconds,val/total\n1,0.5,106.25\n2,0.5,104.5\n")
    return folder


def test_the_card_of_a_run_has_all_that_its_folder_has(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a <run> & more")
    (folder / "evaluation.json").write_text(json.dumps(EVALUATED))
    page = Page(card.write_run(folder))
    assert page.images == {
        path.relative_to(folder / "figures").as_posix(): path.read_bytes() for path in folder.rglob("figures/*/*.*")
    }
    assert [*page.images] == ["latent/evolution.gif", "latent/manifold.png", "curves/losses.png"] and not page.links
    lines = " ".join(page.text.split())
    for text in (
        *("a <run> & more completed · mnist · 3 epochs", "python train.py", "kl 4 × KL(q ‖ p) <exact>"),
        *(
            "nats per image total recon kl ± train 103.00 98.00 5.00",
            "test 104.50 99.50 5.00",
            "Weights of epoch 2 of 3",
        ),
        *(
            "measure number value ± unit better likelihood nll 98.765 ± 0.020 nats lower",
            "likelihood nll_images 1,000 images",
            "for others see the sampling_error Weights of epoch 2. ",
            "1 0.500 106.250",
            "beta 4",
            "prior.latent_dim 2",
            "trained on mnist",
            "parameters 1000",
        ),
    ):
        assert text in lines, text
    assert "data.root" not in lines and "root a" not in lines  # where it lies on this machine


def test_the_card_has_bits_where_there_are_any(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics |= {f"{part}/bits_per_dim": 3.5 for part in ("train", "val", "test")}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = " ".join(Page(card.write_run(folder)).text.split())
    assert "total recon kl ± bits/dim train 103.00 98.00 5.00 3.5000" in lines


def test_the_command_is_what_to_type(tmp_path: Path) -> None:
    with recorded(tmp_path, run().config, typed=["beta=4", "prior.covariance=[[2, 1],[1, 2]]"]):
        pass
    assert "python train.py beta=4 'prior.covariance=[[2, 1],[1, 2]]'" in Page(tmp_path / card.CARD).text


def test_a_run_that_failed_has_a_card_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too <large>"), recorded(tmp_path, run().config):
        raise ValueError("too <large>")
    lines = Page(tmp_path / card.CARD).text
    assert "ValueError: too <large>" in lines and "failed · 3 epochs" in lines and "nats per image" not in lines


def test_a_card_that_fails_leaves_the_run_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> str:
        raise RuntimeError("no paper")

    monkeypatch.setattr(card, "_run", fail)
    with recorded(tmp_path, run().config):
        pass
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "completed"
    assert not (tmp_path / card.CARD).exists()
    assert re.search(r"report\.html could not be written: no paper", caplog.text)


def test_a_run_has_not_ended_before_its_card_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, it would never get one: nobody goes on with a run that has ended."""
    states = []
    write_card = card.write_run

    def note(folder: Path, status: Any = None) -> Path:
        states.append(json.loads((folder / "status.json").read_text())["state"])
        return write_card(folder, status)

    monkeypatch.setattr(card, "write_run", note)
    with recorded(tmp_path, run().config):
        pass
    assert states == ["running"]
    assert "completed" in (tmp_path / card.CARD).read_text()


def test_an_autoencoder_has_no_total(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", autoencoder(recon=90.0))
    lines = " ".join(Page(card.write_run(folder)).text.split())
    assert "nats per image recon train validation 91.00 test 90.00" in lines and "±" not in lines


def test_the_card_of_a_sweep_leads_to_its_runs_the_best_first(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write(sweep / "0_beta=1#?", run(total=120.0))
    finished(sweep / "1_beta=4")
    write(sweep / "2_beta=9", run(total=None, state="failed", error="ValueError: no\nmore", beta=9.0))
    page = Page(card.write_sweep(sweep, find_runs([sweep])))
    assert page.links == [f"{name}/report.html" for name in ("1_beta=4", "0_beta=1#?", "2_beta=9")]
    (name, shown), *others = page.images.items()
    assert name == "latent/manifold.png" and not others and len(shown) > 100
    lines = " ".join(page.text.split())
    assert "3 runs" in lines and "104.50" in lines and "2_beta=9: ValueError: no more" in lines


def test_a_card_imports_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    code = f"import sys; from pathlib import Path; from vae.runs import card; card.write_run(Path({str(folder)!r}));"
    code += " assert not {'torch', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numbers_and_names_stay_whole_on_a_phone(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    page = card.write_run(finished(tmp_path / "run"))
    script = """
      document.body.style.width = "200px";
      const lines = (cell) => (range = document.createRange(), range.selectNodeContents(cell), range.getClientRects());
      const cells = document.querySelector("tbody").querySelectorAll("td");
      document.body.dataset.lines = [...cells].map((cell) => lines(cell).length);"""
    page.write_text(page.read_text(encoding="utf-8") + f"<script>{script}</script>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    command = [browser, *options, "--window-size=412,915", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    lines = re.search(r'data-lines="([\d,]+)"', shown)
    assert lines and set(lines[1].split(",")) <= {"0", "1"}
