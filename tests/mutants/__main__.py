"""`python -m tests.mutants [WORD]`: each mutant (with the word in its name) in a copy of the tree; the tests that it
names must fail there.

First they all run in an unchanged copy, where they must pass: a test that fails anyway catches nothing. A mutant that
only crashes shows nothing either, because any test sees that: each must keep the types, also as the code changes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.changes import Change, Mutant
from tests.torture_report import report

PROJECT_DIR = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")
TESTS_SECONDS_MAX = 400
TYPES_SECONDS_MAX = 120
# A second in a copy of what was checked before, and 20 without this.
TYPES_CACHE = PROJECT_DIR / ".mypy_cache" / "mutants"
# What a mutant may have, because it works all the same: code that is never reached, and an empty value of no type.
TYPES_OPTIONS = ("--no-warn-unreachable", "--disable-error-code", "var-annotated", "--cache-dir", str(TYPES_CACHE))
# What pytest ends with when tests ran and some of them failed; anything else is no verdict.
PASSED, SOME_FAILED = 0, 1
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S.*?)(?: - .*)?$", re.MULTILINE)


class NoVerdict(Exception):
    pass


def main() -> int:
    mutants = [mutant for mutant in MUTANTS if all(word in mutant.name for word in sys.argv[1:])]
    control = sorted({test for mutant in mutants for test in mutant.tests})
    if failed := failed_tests((), control):
        print("these fail without any mutant:", *failed, sep="\n  ")
        return 1
    caught = {mutant.name: caught_by(mutant) for mutant in mutants}
    survivors = [name for name, tests in caught.items() if not tests]
    report("mutants", {"mutants": len(mutants), "survivors": survivors, "caught_by": caught})
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants caught")
    return 1 if survivors else 0


def caught_by(mutant: Mutant) -> Sequence[str]:
    tests = failed_tests(mutant.changes, mutant.tests)
    print(f"{mutant.name}: " + (f"caught by {tests[0]}" if tests else "SURVIVED"), flush=True)
    return tests


def failed_tests(changes: Sequence[Change], tests: Sequence[str]) -> Sequence[str]:
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(PROJECT_DIR, tree, ignore=LEFT_OUT)
        for change in changes:
            make(change, tree)
        check_types(tree)
        # Its own report would be added to ours.
        environment = {name: value for name, value in os.environ.items() if name != "TORTURE_REPORT"}
        outcome = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "--maxfail=3", *tests],
            cwd=tree,
            env=environment | {"PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            timeout=TESTS_SECONDS_MAX,
            check=False,
        )
    if outcome.returncode not in (PASSED, SOME_FAILED):
        raise NoVerdict(outcome.stdout[-4000:] + outcome.stderr[-4000:])
    return FAILED.findall(outcome.stdout)


def make(change: Change, tree: Path) -> None:
    file = tree / change.file
    text = file.read_text()
    if text.count(change.old) != 1:
        raise NoVerdict(f"{change.file} has {text.count(change.old)} times, and not once:\n{change.old}")
    file.write_text(text.replace(change.old, change.new))


def check_types(tree: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "mypy", *TYPES_OPTIONS, "app"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=TYPES_SECONDS_MAX,
        check=False,
    )
    if outcome.returncode:
        raise NoVerdict(outcome.stdout[-4000:] + outcome.stderr[-4000:])


if __name__ == "__main__":
    sys.exit(main())
