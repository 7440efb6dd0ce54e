.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A server of S3 for tests, whose packages do not go together with ours.
MOTO := $(VENV)/moto
MOTO_READY := $(MOTO)/.ready
INSTALL_CHROMIUM := apt-get install --yes --quiet --no-install-recommends chromium
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links

.PHONY: help run demo test chromium browser-test torture check bench format openapi requirements clean

help: ## Show the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# Two first starts at once take turns; the second one finds everything installed.
$(READY): requirements-dev.txt
	@if command -v flock > /dev/null; then exec 9> .venv.lock; flock 9; fi; \
	if [ ! $@ -nt requirements-dev.txt ]; then \
		echo "Installing the pinned packages into $(VENV) (once, about a minute) ..."; \
		{ test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt \
		&& touch $@; \
	fi

$(MOTO_READY): requirements-moto.txt | $(READY)
	@if command -v flock > /dev/null; then exec 9> .venv.lock; flock 9; fi; \
	if [ ! $@ -nt requirements-moto.txt ]; then \
		echo "Installing a server of S3 for the tests into $(MOTO) (once) ..."; \
		{ test -x $(MOTO)/bin/python || $(BIN)/python -m venv $(MOTO); } \
		&& $(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-moto.txt \
		&& touch $@; \
	fi

run: $(READY) ## Start everything: PostgreSQL, fal simulator (without FAL_KEY), API on http://127.0.0.1:8000
	@exec $(BIN)/python -m app serve

demo: $(READY) ## Take the running service through its main job and save the files under DATA_DIR/demo
	@exec $(BIN)/python -m app demo

# Those that measure times come last, one by one. 5 is pytest's word for nothing to run: ARGS may name either kind alone.
test: $(READY) $(MOTO_READY) ## Run the whole test suite on its own PostgreSQL
	@$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not alone" $(ARGS); together=$$?; \
	$(BIN)/python -m pytest -q $(ARGS) -n 0 -m alone; alone=$$?; \
	case "$$together $$alone" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac

# The browser is the system's: where there is none, it is installed if that is allowed, and else the tests are skipped.
chromium:
	@command -v chromium > /dev/null \
		|| { test "$$(id -u)" = 0 && { $(INSTALL_CHROMIUM) || { apt-get update --quiet && $(INSTALL_CHROMIUM); }; }; } \
		|| echo "There is no Chromium for the tests of the studio. As root: $(INSTALL_CHROMIUM)"

browser-test: $(READY) chromium ## Only the tests of the studio, in a real Chromium (Debian's, installed where it is missing)
	@$(BIN)/python -m pytest -q -n 0 -m browser tests/browser $(ARGS)

torture: $(READY) $(MOTO_READY) ## What is too long for make test, one to two hours; ARGS="kills --scale 0.1 --seed 7" for a part of it
	@$(BIN)/python -m torture $(ARGS)

check: $(READY) ## Format, lint, types, import contracts, container files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck entrypoint.sh .ci/run
	$(BIN)/yamllint --strict docker-compose.yml .pre-commit-config.yaml

bench: $(READY) $(MOTO_READY) ## Measure the service against its floors; ARGS="accept status --quick" for some rows
	@exec $(BIN)/python -m benchmarks $(ARGS)

format: $(READY) ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(READY) ## Write docs/openapi.json from the code
	@$(BIN)/python -m app openapi > docs/openapi.json

requirements: $(READY) ## Pin the packages that pyproject.toml names (needs uv)
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt
	$(COMPILE) requirements-moto.in -o requirements-moto.txt

clean: ## Remove the environment and the caches (not the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
