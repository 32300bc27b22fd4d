"""docs/theory.md: its pictures, its links, and what it states."""

import re
from pathlib import Path

import pytest
import theory
import torch
from PIL import Image
from torch.nn.functional import normalize

from vae.model.distributions import DiagonalNormal, FullNormal, TiedNormal, kl
from vae.model.priors import Correlated

ROOT = Path(__file__).parents[2]

PAGE = ROOT / "docs" / "theory.md"
TEXT = PAGE.read_text(encoding="utf-8")
PLAIN = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)  # without blocks of code and formulas
CONCEPTS = [name for name in theory.PICTURES if name != "true_posterior"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(theory, "COUNTS", (1, 10, 100))
    monkeypatch.setattr(theory, "GRADIENTS", 100)
    monkeypatch.setattr(theory.toys, "linear_optimum", theory.toys.water_filling)  # which has a test of its own


# The pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_picture_is_drawn(name, tmp_path, capsys):
    theory.main([name, "--out", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / f"{name}.png")
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 400 and len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_the_true_posterior_is_that_of_the_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr(theory, "RUN", run())
    theory.main(["true_posterior", "--out", str(tmp_path)])
    assert (tmp_path / "true_posterior.png").is_file()


def test_without_the_run_the_command_that_trains_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(theory, "RUN", tmp_path / "nowhere")
    with pytest.raises(SystemExit) as stop:
        theory.main(["true_posterior", "--out", str(tmp_path)])
    needed = "needs the run of: python train.py experiment=tutorial_2d hydra.run.dir=outputs/gallery/tutorial_2d"
    assert stop.value.code == f"error: picture=true_posterior: {needed}"
    monkeypatch.setattr(
        theory, "PICTURES", {name: theory.PICTURES[name] for name in ("two_densities", "true_posterior")}
    )
    theory.main(["--out", str(tmp_path)])
    drawn, left_out = capsys.readouterr().out.splitlines()
    assert drawn.endswith("two_densities.png") and left_out.endswith(needed)


def test_the_list_names_all_and_draws_nothing(tmp_path, capsys):
    theory.main(["--list", "--out", str(tmp_path)])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(theory.PICTURES)
    assert not any(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=r"^error: picture=elbow: must be one of importance, elbo, "):
        theory.main(["elbow"])


def test_the_page_shows_every_picture_and_they_are_small():
    shown = set(re.findall(r"\(theory/(\w+)\.png\)", PLAIN))
    assert shown == set(theory.PICTURES) == {path.stem for path in theory.OUT.glob("*.png")}
    assert all(path.stat().st_size < 150_000 for path in theory.OUT.glob("*.png"))


# The page -------------------------------------------------------------------------------------------------------------


def test_each_formula_in_a_line_of_text_is_left_alone_by_markdown():
    """Emphasis and escapes are Markdown's before they are mathematics."""
    prose = re.sub(r"`[^`\n]+`", "", PLAIN)
    formulas = re.findall(r"\$([^$]+)\$", prose)
    assert len(formulas) > 80 and prose.count("$") == 2 * len(formulas)
    for formula in formulas:
        assert "\n\n" not in formula and not formula[0].isspace() and not formula[-1].isspace(), formula
        assert not re.search(r"\\[^A-Za-z]|\*|(?<![A-Za-z0-9])_|<|\|", formula), formula
    assert not re.search(r"\$[A-Za-z0-9]*\$[A-Za-z0-9]", prose)


def test_all_named_code_is_where_the_table_says():
    for cell in re.findall(r"^\| \d+ \|.*\| (.+) \|$", TEXT, re.MULTILINE):
        for names, path in re.findall(r"((?:`[\w.]+`(?: and )?)+) in \[\w+\.py\]\(\.\./(.+?)\)", cell):
            code = (ROOT / path).read_text(encoding="utf-8")
            for name in re.findall(r"`([\w.]+)`", names):
                assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", code), (name, path)


# What it states -------------------------------------------------------------------------------------------------------


def test_a_full_posterior_has_the_same_kl_in_other_coordinates():
    prior = Correlated(3).double()()
    back = prior.scale_tril.inverse()
    loc, factor = torch.randn(5, 3).double(), torch.randn(5, 3, 3).double().tril()
    factor.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    here = kl(FullNormal(loc, factor), prior, loc)
    round_prior = FullNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert torch.allclose(here, kl(FullNormal(loc @ back.T, back @ factor), round_prior, loc))


def test_a_tied_posterior_is_round_there_only_if_it_is_a_scaled_prior():
    prior = Correlated(2).double()()
    back, factor = prior.scale_tril.inverse(), normalize(prior.scale_tril, dim=-1)

    def there(scale):
        return back @ TiedNormal(torch.zeros(2).double(), scale, factor).covariance_matrix @ back.T

    assert torch.allclose(there(0.3 * prior.stddev), 0.09 * torch.eye(2).double())
    assert there(torch.tensor([0.3, 0.1]).double())[0, 1].abs() > 0.01


def test_a_diagonal_posterior_pays_at_least_what_the_page_says():
    prior = Correlated(2).double()()
    log_scale = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loc = torch.randn(1, 2).double().requires_grad_()
    optimizer = torch.optim.LBFGS([loc, log_scale], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = kl(DiagonalNormal(loc, log_scale.exp()), prior, loc).sum()
        value.backward()
        return value

    optimizer.step(loss)
    (said,) = re.findall(r"-\\tfrac12 \\log\(1 - \\rho\^2\) = (0\.\d+)", TEXT)
    assert loss().item() == pytest.approx(float(said), abs=5e-4)
    precision = prior.covariance_matrix.inverse().diagonal()
    assert torch.allclose(log_scale.exp().square(), 1 / precision, atol=1e-4)
    assert prior.covariance_matrix[0, 1] / prior.stddev.prod() == pytest.approx(0.566, abs=5e-4)


def test_the_effective_beta_is_that_of_the_table():
    rows = re.findall(r"^\| ([\d×]+) \| (\d+) \| ([\d,.]+) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 4
    for shape, latent_dim, beta in rows:
        pixels = torch.tensor([int(side) for side in shape.split("×")]).prod().item()
        assert float(beta.replace(",", "")) == pytest.approx(pixels / int(latent_dim), abs=0.05)
