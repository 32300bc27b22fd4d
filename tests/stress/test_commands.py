"""Command lines with wrong values: one line that says what is wrong, or a run that ends well. Nothing in between."""

from __future__ import annotations

import functools
import json
import math
import random
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

import vae
from vae.entry.cli import prepare
from vae.settings import compose
from vae.settings.compose import CONF
from vae.settings.config import check, without_hydra
from vae.settings.errors import LONGEST, explain
from vae.settings.machine import check_machine
from vae.settings.ranges import RANGES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHOICES = sorted((group, path.stem) for group in RANGES for path in (CONF / group).glob("*.yaml"))
HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.name", "hydra.verbose")
HOW_IT_IS_BUILT = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")

VALUES = (
    *("0", "1", "-1", "2", "3", "5", "64", "1.0", "0.5", "-0.5", "1e-3", "true", "false", "null", "abc", "auto"),
    *("nan", "inf", "-inf", "1e30", "1e31", "1e308", "-1e308", "1e-320", "2147483648", "-9223372036854775809"),
    *("1" + 20 * "0", "1" + 400 * "0", "-" + 5000 * "9", "x" * 3000, "[" + 500 * "1," + "1]"),
    *("", "''", '""', "' '", "'it''s'", "'a\nb'", "'\x1b[31mred'", "\udcff", "naïve", "数", "'ä ö\t\r\n'"),
    *("[]", "[1]", "[0]", "[-1]", "[1,2]", "[0,0]", "[a]", "[nan,1]", "[null]", "[[]]", "[[1,0],[0,1]]", "[1,[2,[3]]]"),
    *("[[1,0.4],[0.4,0.5]]", "[[1e308,0],[0,1]]", "[[1e-320,0],[0,1e-320]]", "[[1,nan],[nan,1]]", "[7]", "[[1]]"),
    *("{}", "{a:1}", "{_target_:os.getcwd}", "[{_target_:os.getcwd}]", "{latent_dim:3}", "{1:2}", "{a:{b:[{c:null}]}}"),
    *("???", "${nothing}", "${latent_dim}", "${beta}", "${prior}", "${hydra.run.dir}", "${oc.env:NO_SUCH_VARIABLE}"),
    *(
        "${oc.env:HOME}",
        "${no_such_resolver:1}",
        "${..}",
        "${",
        "$",
        "}",
        "[",
        "]",
        "(",
        "\\",
        "'",
        '"',
        "a=b",
        "=",
        ":",
    ),
    *("1,2", "range(1,3)", "choice(1,2)", "interval(0,1)", "glob(*)", "int(a)", "sort(3,1)", "float('nan')"),
    *("/etc/passwd", "/nowhere", "'~nobody_of_this_name/x'", "..", ".", "*", "'a b/c=d,e'", "'" + 300 * "d" + "'"),
    *(
        "vae.model.priors.Isotropic",
        "vae.model.priors.Nothing",
        "vae.model.priors",
        "vae.model.posteriors.Tied",
        "os.system",
        "os.",
        ".x",
    ),
    *(
        "collections.Counter",
        "nowhere.Class",
        "torch.optim.SGD",
        "torch.nn.Linear",
        "builtins.print",
        "vae.training.run.train_run",
    ),
    *("constant", "linear", "learned", "optimal", "none", "threshold", "dynamic", "full", "total", "16-mixed", "gpu"),
)
TAME = (
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "1e-3",
    "true",
    "false",
    "null",
    "1e30",
    "1e-320",
    "[1]",
    "[4,2]",
    "[0.5,0.9]",
    "[3]",
)
SMALL = ("data=strokes", "data.limit=200", "epochs=1", "figures=none", "evaluate=none")
MATTERS = ("backbone", "prior", "posterior", "likelihood", "objective", "optimizer", "scheduler")
GIVEN = ("_target_", "_partial_", "latent_dim")


@functools.cache
def composed(*choices: str) -> DictConfig:
    """What Hydra composes of some groups' choices alone."""
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compose.composed(*choices, with_hydra=True)


def overridden(choices: list[str], overrides: list[str]) -> DictConfig:
    """The same with values, set as Hydra sets them; to compose everything anew would take far longer."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    ConfigLoaderImpl.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
    cfg = composed(*choices).copy()
    ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
    return cfg


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key below a node, those of groups and of lists' entries included."""
    entries: Iterable[Any] = (
        range(len(node)) if isinstance(node, ListConfig) else node if isinstance(node, DictConfig) else ()
    )
    for key in entries:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key):
            yield from keys_of(node[key], f"{prefix}{key}.")


def override(rng: random.Random, cfg: DictConfig) -> str:
    """A value for some key, or something else that one may do to a key."""
    every = sorted(keys_of(without_hydra(cfg)))
    group = rng.choice(sorted({key.partition(".")[0] for key in every}))
    key = rng.choice([key for key in every if key.partition(".")[0] == group])
    key = rng.choice([*[key] * 8, rng.choice(HYDRA), f"{rng.choice(sorted(RANGES))}.{rng.choice(HOW_IT_IS_BUILT)}"])
    how = rng.choice(["{}={}"] * 12 + ["+{}={}", "++{}={}", "~{}", "~{}={}", "{}", "+{}.new={}", "{}x={}", "{}.0={}"])
    return how.format(key, rng.choice(VALUES))


def refusal(choices: list[str], overrides: list[str]) -> str | None:
    """The line that a command is refused with before its run's folder is made; None where it is not."""
    try:
        cfg = without_hydra(overridden(choices, overrides))
        check(cfg, [*choices, *overrides])
        check_machine(cfg, list)
    except Exception as error:
        return explain(error)
    return None


def wrong_with(line: str, command: list[str]) -> str | None:
    """Why a line does not say what is wrong; None where it does."""
    if not (line and len(line) <= LONGEST and line.isprintable()):
        return "not one readable line"
    if jargon := [
        word for word in ("Traceback", "object at 0x", "Rule(", "Config ", "DictConfig", "NoneType") if word in line
    ]:
        return f"has {jargon[0]!r}"
    keys = {text.lstrip("+~").partition("=")[0].partition(".")[0] for text in command}
    named = any(key in line for key in keys) or line.startswith("one of the ")
    return None if named else "names no key"


def test_a_command_is_accepted_or_refused_in_one_line(rounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    accepted = refused = 0
    for rng in rounds(share=0.15, least=500):
        choices = ["=".join(choice) for choice in rng.sample(CHOICES, rng.choice([0, 1, 1]))]
        overrides = [override(rng, composed(*choices)) for _ in range(rng.choice([1, 1, 1, 2]))]
        line = refusal(choices, overrides)
        wrong = line is not None and wrong_with(line, [*choices, *overrides])
        assert not wrong, f"python train.py {[*choices, *overrides]}: {wrong}: {line!r}"
        accepted, refused = accepted + (line is None), refused + (line is not None)
    assert accepted > 5 and refused > 5
    assert not [*tmp_path.iterdir()]


def small_command(rng: random.Random) -> list[str]:
    """A command whose values are accepted, though some are strange, and whose cost is bounded."""
    while True:
        group, name = rng.choice([choice for choice in CHOICES if choice[0] in MATTERS])
        keys = [key for key in keys_of(composed(f"{group}={name}")[group], f"{group}.") if not key.endswith(GIVEN)]
        widths = [] if name == "conv" else ["backbone.hidden=[8]"]
        values = [f"{rng.choice([*keys, 'beta', 'optimizer.lr', 'data.val_fraction'])}={rng.choice(TAME)}"]
        if not refusal([*SMALL, f"{group}={name}"], [*widths, *values]):
            return [*SMALL, f"{group}={name}", *widths, *values, "trainer.accelerator=cpu"]


def test_what_is_accepted_trains_or_is_refused_in_one_line(rounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = 0
    for number, rng in enumerate(rounds(share=0.15, least=12)):
        command, folder = small_command(rng), tmp_path / str(number)
        try:
            vae.train(*command, folder=folder)
        except ValueError as error:
            wrong = wrong_with(str(error), [*command, "loss", "total"])
            assert not wrong, f"python train.py {command}: {wrong}: {str(error)!r}"
            continue
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        numbers = {key: value for key, value in metrics.items() if isinstance(value, float)}
        assert numbers and all(map(math.isfinite, numbers.values())), f"python train.py {command}: {numbers}"
        trained += 1
    assert trained > 2


COMMANDS = (
    ["latent_dim=99999999999999999999"],
    ["~conditional"],
    ["~trainer.devices"],
    ["prior._target_=vae.model.posteriors.Tied"],
    ["data=images", "data.root=/nowhere"],
    ["data=factors", "data.file=/nowhere.npz"],
    ["trainer.devices=[7]", "trainer.accelerator=cpu"],
    ["report='a\nb'"],
    ["beta=${nothing}"],
    ["~hydra.run.dir"],
    ["hydra.run.dir=${nothing}"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_program_refuses_in_one_line_and_leaves_nothing(command, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not wrong_with(done.stderr.rstrip("\n"), command), done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_model_that_no_memory_holds_is_refused_in_one_line(tmp_path):
    command = ["data=strokes", "data.limit=200", "epochs=1", "latent_dim=1000000", "backbone.hidden=[8,1000000]"]
    with pytest.raises(ValueError, match=r"out of memory: 3\.\d+ TiB were asked for at once; lower .*latent_dim"):
        vae.train(*command, "trainer.accelerator=cpu", folder=tmp_path / "run")
