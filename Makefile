# `make` lists the targets. They fetch what they need into .venv and .tools, or into a folder that `.ci/run` makes for each run.

# A value given on the command line reaches a recipe through the environment, as it was typed: recipes read "$$REF", never $(REF),
# so that neither make nor the shell expands what it contains. A nested make reads the same environment.
$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(eval override $(name) := $$(value $(name)))$(eval export $(name))))
MAKEOVERRIDES =

TOOLS := $(if $(COPIER_MLOPS_WORKSPACE),$(COPIER_MLOPS_WORKSPACE)/tools,$(CURDIR)/.tools)
UV := $(shell command -v uv 2>/dev/null || echo '$(TOOLS)/bin/uv')
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(TOOLS)/bin:$(PATH)
# The caller's variables that lead tools elsewhere do not reach them, as in a project.
include template/make/environment.mk

# Tests wait for processes that start, more than for the processor: two at a time take a bit more than half as long.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup wheel demo demo-loop import-repo test test-all check format bench canary canary-issue refresh release release-check pass fleet-status \
	fleet-update

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.venv/.ready: pyproject.toml
	@command -v git >/dev/null || { echo "error: git is not installed; Copier and the projects need it. Install it (apt-get install git, brew install git) and do the same again." >&2; exit 1; }
	@test -x "$(UV)" || command -v "$(UV)" >/dev/null || { \
	  command -v python3 >/dev/null || { echo "error: neither uv nor python3 is installed. Install Python 3.11 or newer and do the same again." >&2; exit 1; }; \
	  echo "fetching uv into $(TOOLS)"; \
	  python3 -m venv "$(TOOLS)" && "$(TOOLS)/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9' || { \
	    rm -rf "$(TOOLS)"; echo "error: uv could not be fetched. Install it yourself (pipx install uv, brew install uv; on Debian 'apt-get install python3-venv' also helps) and do the same again." >&2; exit 1; }; }
	@"$(UV)" python find --quiet '>=3.11,<3.15' >/dev/null 2>&1 || { \
	  echo "error: Python 3.11 to 3.14 is needed, and none is installed (python3 is $$(python3 --version 2>&1 || true)). Install one from your system's packages or with 'uv python install 3.12' and do the same again." >&2; exit 1; }
	@"$(UV)" sync --quiet --all-extras
	@touch .venv/.ready

setup: .venv/.ready ## fetch what the other targets need

demo: .venv/.ready ## render a project into demo/, run all of it on real flights
	@test ! -e demo || test -f demo/.copier-answers.yml || { echo "error: demo/ is there and was not made by this template; move it away" >&2; exit 1; }
	@rm -rf demo
	@echo "rendering a project into demo/"
	@$(BIN)/copier copy --quiet --defaults --vcs-ref HEAD "$(CURDIR)" demo 2>/dev/null
	@$(MAKE) --no-print-directory -C demo run
	@echo; echo "  the project is in demo/: start with demo/README.md; 'cd demo && make' lists what it can do"

demo-loop: .venv/.ready ## the demo, carried on to a live answer, and to two replayed months in which the loop keeps the model good
	@test ! -e demo-loop || test -f demo-loop/.copier-answers.yml || { echo "error: demo-loop/ is there and was not made by this template; move it away" >&2; exit 1; }
	@rm -rf demo-loop
	@echo "rendering a project into demo-loop/"
	@$(BIN)/copier copy --quiet --defaults --data 'serving=[online,batch]' --data deploy=compose --data monitoring=true \
	  --vcs-ref HEAD "$(CURDIR)" demo-loop 2>/dev/null
	@$(MAKE) --no-print-directory -C demo-loop run
	@$(BIN)/python ci/demo_loop.py demo-loop

import-repo: .venv/.ready ## render a project for an existing repository: make import-repo REPOSITORY=../churn [INTO=../churn-mlops]
	@$(BIN)/python -m import_repo "$$REPOSITORY" "$$INTO"

test: .venv/.ready ## what a change has to pass: a full path through every capability
	@$(BIN)/pytest -o cache_dir="$(TOOLS)/pytest" -m "not long" -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

test-all: .venv/.ready ## that, and the long products of cases; before a release; goes on where it was cut off; writes docs/tested.md [ONLY=words]
	@$(BIN)/pytest -o cache_dir="$(TOOLS)/pytest" -n $(WORKERS) --table=docs/tested.md $${ONLY:+-k "$$ONLY"}

wheel: .venv/.ready ## build the runtime as a wheel into dist/, for projects with runtime: package
	@"$(UV)" build --quiet --wheel --out-dir dist

check: .venv/.ready ## format, lint, types, workflows
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/zizmor --offline --pedantic --quiet --no-progress .github template/.github

format: .venv/.ready ## format the code, mend what the linter can mend
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: .venv/.ready ## measure, and write docs/benchmarks.md [ONLY=name]
	@$(BIN)/python benchmarks/run.py $${ONLY:+--only="$$ONLY"}

fleet-status: .venv/.ready ## who follows which release, how far from the standard: make fleet-status PROJECTS=projects.txt [JSON=1]
	@$(BIN)/python ci/fleet.py status "$$PROJECTS" $${JSON:+--json}

fleet-update: .venv/.ready ## update many projects in waves, each on a branch: make fleet-update PROJECTS=projects.txt [PLAN=1] [REF=]
	@$(BIN)/python ci/fleet.py update "$$PROJECTS" $${JSON:+--json} $${REF:+--ref="$$REF"} $${SET:+--set="$$SET"} \
	  $${WAVES:+--waves="$$WAVES"} $${CHECKS:+--checks="$$CHECKS"} $${PLAN:+--plan} $${TRUST:+--trust} $${FORCE:+--force}

canary: .venv/.ready ## does a project work with the newest packages and the newest Copier?
	@$(BIN)/python ci/canary.py

canary-issue: .venv/.ready ## tell in an issue that it does not
	@$(BIN)/python ci/canary.py --issue

refresh: .venv/.ready ## move the known-good day to today; make test-all says whether it holds
	@$(BIN)/python ci/release.py refresh

release-check: .venv/.ready ## what is in the way of a release: make release-check VERSION=1.4.0
	@$(BIN)/python ci/release.py check

release: .venv/.ready ## hold it against the release before, commit, tag; push where GitHub says so: make release VERSION=1.4.0
	@$(BIN)/python ci/release.py publish

pass: ## whether all jobs of a workflow passed: make pass RESULTS="success success"
	@python3 template/ci/gate.py
