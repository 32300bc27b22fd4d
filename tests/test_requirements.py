"""The versions that pyproject.toml allows are those that the files of constraints have."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def needed() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {each.name: each for each in map(Requirement, project["dependencies"])}


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {name: Version(version) for name, _, version in (line.partition("==") for line in lines) if version}


def test_the_oldest_versions_are_the_lower_bounds():
    lowest = {
        name: [Version(bound.version) for bound in each.specifier if bound.operator == ">="]
        for name, each in needed().items()
    }
    assert lowest == {name: [version] for name, version in pinned("constraints-oldest.txt").items()}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_pinned_versions_are_allowed(name):
    pins = pinned(name)
    assert [package for package, each in needed().items() if pins[package] not in each.specifier] == []
