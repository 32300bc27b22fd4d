"""Errors of Hydra, OmegaConf and PyTorch in one line: the key, the value, what is wrong and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from hydra.errors import InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from vae.settings.keys import left_out, unknown_key

ALLOWED = {  # OmegaConf's words for a refused value, mostly of Hydra's own keys, and the value that it wants
    "could not be converted to Integer": "an integer",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not a ListConfig": "a list",
    "is not Optional": "something else than null",
    "NoneType is not a subclass of": "something else than null",
    "to string: ": "a text",
    "Cannot merge DictConfig with ListConfig": "a list where one is now, and key: value pairs where these are",
}

EXTRAS = {  # messages where a package is not installed, with its name and that of the extra
    "Unknown plugin class : 'hydra_plugins.hydra_joblib_launcher.": ("joblib's launcher", "sweep"),
    "Unknown plugin class : 'hydra_plugins.hydra_submitit_launcher.": ("submitit's launcher", "sweep"),
    "No module named 'ray'": ("Ray", "sweep"),
    "Could not find 'hydra/sweeper/optuna'": ("Optuna's sweeper", "search"),
}


LONGEST = 400  # characters of a line; what is wrong stands at its ends, and a long value between them

# How PyTorch and NumPy say how much memory they could not get.
OUT_OF_MEMORY = re.compile(r"(?:tried to allocate|unable to allocate) (?P<size>[\d.]+) ?(?P<unit>\w+)", re.IGNORECASE)

NAMES_NO_KEY = {  # messages of Python and OmegaConf that name no key, and what they mean
    "int too large to convert to float": "one of the values is a number of too many digits",
    "Exceeds the limit (4300 digits)": "one of the values is a number of too many digits",
    "list indices must be integers": "one of the keys is an entry of a list: give the whole list instead",
    "Unexpected type for root: NoneType": "one of the keys is below a value that is null: give the whole value instead",
}

# How Hydra says that a value is a sweep's.
SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.+=.+)'")

OF_CPP = re.compile(r"\s*(?:Exception raised from|C\+\+ CapturedTraceback|frame #\d+:).*", re.DOTALL)


def explain(error: BaseException) -> str:
    """One line for any error."""
    line = " ".join(OF_CPP.sub("", _sentence(error)).split())
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return line if len(line) <= LONGEST else f"{line[:150]} … {line[153 - LONGEST :]}"


def _sentence(error: BaseException) -> str:
    cause = error.__cause__
    if asked := OUT_OF_MEMORY.search(str(error)):
        return (
            f"out of memory: {_readable(asked['size'], asked['unit'])} were asked for at once; lower data.batch_size, "
            "latent_dim, the widths of the backbone or prior, or how many samples or components there are"
        )
    for said, (name, extra) in EXTRAS.items():
        if said in str(error):
            return _comes_with(name, extra)
    for said, meant in NAMES_NO_KEY.items():
        if str(error).startswith(said):
            return meant
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        from vae.settings.compose import yamls  # imports Hydra, which those that compare runs do without

        group, _, choice = error.missing_cfg_file.rpartition("/")
        if options := error.options or (yamls(group) if group else []):  # Hydra gives none for one of a list
            return f"{group}={choice}: no such choice; choose one of {', '.join(options)}"
    if isinstance(error, OverrideParseException):
        text = str(error.override)
        if text.endswith(","):
            return f"{text}: ends in a comma; write {text.rstrip(',')}, with a space before the next key"
        return f"{text}: cannot be read as key=value; quote a value with special characters: key='a b'"
    if several := SEVERAL.match(str(error)):
        return _several_values(*several[1].split("=", 1))
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: (\S+)", str(error))
        return f"{key[1] if key else 'configuration'}: {_one_line(cause or error)}"
    for each in (cause, error):
        if isinstance(each, MissingMandatoryValue):
            return left_out(str(each.full_key))
        if isinstance(each, ConfigKeyError | ConfigAttributeError) and isinstance(each.parent_node, DictConfig):
            beside = (str(name) for name in each.parent_node)
            return unknown_key(str(each.full_key), [name for name in beside if name != "hydra"])
    if isinstance(cause, OmegaConfBaseException):
        override = re.match(r"Error merging override (.*)", str(error))
        if override and override[1].startswith("~"):
            return left_out(override[1][1:].partition("=")[0])
        return f"{override[1] if override else cause.full_key}: {_of_omegaconf(cause)}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {_of_omegaconf(error)}"
    return _one_line(error)


def _several_values(key: str, values: str) -> str:
    takes_lists = ("." in key or key == "logger") and "(" not in values
    as_list = f", or {key}=[{values}] for a list" if takes_lists else ""
    return f"{key}={values}: must be one value; add -m for a run with each of them{as_list}"


def _of_omegaconf(error: OmegaConfBaseException) -> str:
    wanted = next((allowed for said, allowed in ALLOWED.items() if said in str(error)), None)
    return f"must be {wanted}" if wanted else _one_line(error)


def _readable(size: str, unit: str) -> str:
    """Bytes in the largest unit that gives at least 1."""
    number = float(size)
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB") if unit == "bytes" else ():
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.4g} {unit}"


def require_packages(extra: str, *packages: str) -> None:
    """Raise a `ValueError` of one line unless these packages of an extra are installed."""
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise ValueError(_comes_with(package, extra))


def _comes_with(name: str, extra: str) -> str:
    return f'{name} is not installed; it comes with: pip install -c constraints.txt -e ".[{extra}]"'


def _one_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    kept = [line.strip() for line in lines if not re.match(r"\s*(full_key|object_type|reference_type)[:=]", line)]
    return " ".join(line for line in kept if line)


@contextmanager
def in_one_line(prefix: str = "") -> Iterator[None]:
    """Shorten what is said of values that a stranger chose, which may have any length and any letters."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{prefix}{explain(error)}") from error
