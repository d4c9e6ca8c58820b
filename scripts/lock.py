"""Print requirements.lock: exact pins of all that CreditLab needs, as installed in the environment that runs this.

Make it anew: in a fresh virtual environment `pip install -e '.[otel,s3,dev]' hatchling editables`, run the tests, then
`python scripts/lock.py > requirements.lock`.
"""

import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = {
    "what CreditLab runs on": [*PROJECT["project"]["dependencies"], *EXTRAS["otel"], *EXTRAS["s3"]],
    "what its tests and checks need": EXTRAS["dev"],
    "what builds it": [*PROJECT["build-system"]["requires"], "editables"],
}
HEADER = """\
# Exact versions of everything CreditLab runs on, is tested with and is built by; plain pip installs them:
#   pip install -r requirements.lock && pip install --no-deps --no-build-isolation -e .
# Made by scripts/lock.py from an environment in which the tests passed. pyproject.toml has the ranges."""


def closure(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, version) of the requirements and of everything they need here, each once."""
    waiting, seen = [Requirement(name) for name in names], set()
    while waiting:
        wanted = waiting.pop()
        if (key := (canonicalize_name(wanted.name), frozenset(wanted.extras))) in seen:
            continue
        seen.add(key)
        found = metadata.distribution(wanted.name)
        yield canonicalize_name(found.name), found.version.partition("+")[0]  # "+cpu" is the choice of an index
        for line in found.requires or ():
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(needed)


def main() -> None:
    print(HEADER)
    pinned: set[tuple[str, str]] = set()
    for title, names in GROUPS.items():
        pins = set(closure(names)) - pinned
        pinned |= pins
        print(f"\n# {title}", *(f"{name}=={version}" for name, version in sorted(pins)), sep="\n")


if __name__ == "__main__":
    main()
