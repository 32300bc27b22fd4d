"""Errors of Hydra and OmegaConf in one line: the key, the value, what is wrong and what is allowed."""

from __future__ import annotations

import dataclasses
import re
from importlib.util import find_spec

from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from vae.config import unknown_key

ALLOWED = {  # what OmegaConf says of a refused value, and what it wants
    "could not be converted to Integer": "an integer",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not a ListConfig": "a list",
    "is not Optional": "something else than null",
}

EXTRAS = {  # what is said where something of an extra is not installed, its name and the extra's
    "Unknown plugin class : 'hydra_plugins.hydra_joblib_launcher.": ("joblib's launcher", "sweep"),
    "Unknown plugin class : 'hydra_plugins.hydra_submitit_launcher.": ("submitit's launcher", "sweep"),
    "No module named 'ray'": ("Ray", "sweep"),
    "Could not find 'hydra/sweeper/optuna'": ("Optuna's sweeper", "search"),
}


def explain(error: BaseException) -> str:
    """One line for any error."""
    cause = error.__cause__
    for said, (name, extra) in EXTRAS.items():
        if said in str(error):
            return _comes_with(name, extra)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: no such choice; choose one of {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value ({error.message.splitlines()[0]})"
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'configuration'}: {_one_line(cause or error)}"
    for each in (cause, error):
        if isinstance(each, MissingMandatoryValue):
            return f"{each.full_key}: has no default; give it as {each.full_key}=…"
        if isinstance(each, ConfigKeyError | ConfigAttributeError) and dataclasses.is_dataclass(each.object_type):
            full_key = str(each.full_key)
            prefix = full_key.rpartition(".")[0]
            names = (field.name for field in dataclasses.fields(each.object_type))
            return unknown_key(full_key, [f"{prefix}.{name}" if prefix else name for name in names])
    if isinstance(cause, OmegaConfBaseException):
        override = re.match(r"Error merging override (.*)", str(error))
        wanted = next((allowed for said, allowed in ALLOWED.items() if said in str(cause)), None)
        what = f"must be {wanted}" if wanted else _one_line(cause)
        return f"{override[1] if override else cause.full_key}: {what}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {_one_line(error)}"
    return _one_line(error)


def require_packages(extra: str, *packages: str) -> None:
    """Raise a `ValueError` of one line unless these packages of an extra are installed."""
    for package in packages:
        if find_spec(package) is None:
            raise ValueError(_comes_with(package, extra))


def _comes_with(name: str, extra: str) -> str:
    return f'{name} is not installed; it comes with: pip install -c constraints.txt -e ".[{extra}]"'


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    kept = [line.strip() for line in lines if not re.match(r"\s*(full_key|object_type|reference_type)[:=]", line)]
    return " ".join(line for line in kept if line)
