# Every target bootstraps what it needs into .venv, from the lock with hashes. Needs git, make and Python >= 3.11 with venv.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed-from-lock
BIN := $(VENV)/bin
AUDIT := .venv-audit
PROFILER := .venv-bench

.DEFAULT_GOAL := help
.PHONY: help run test faults fuzz lint format bench audit sbom lock clean

help: ## these lines
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; set PYTHON=python3.12, say"; exit 1; }
	@echo "==> installing the pinned packages into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(STAMP) ## the whole system on this machine, until Ctrl-C
	@exec $(BIN)/python -m deploy.local

test: $(STAMP) ## every test, faults in their short form
	@exec $(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

faults: $(STAMP) ## the fault suite in its long form: 20 s a fault, 60 s without S3
	@SPILLWAY_FAULTS=long exec $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/faults $(ARGS)

fuzz: $(STAMP) ## the fuzzers in their long form: 20,000 cases against a running ingest
	@SPILLWAY_FUZZ=long exec $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/fuzz $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put every file into its one form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(PROFILER)/.installed-from-lock: bench.lock
	@$(PYTHON) -m venv $(PROFILER)
	@$(PROFILER)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement bench.lock
	@touch $@

bench: $(STAMP) $(PROFILER)/.installed-from-lock ## our tiers and their peers side by side, about 20 minutes; needs Go; ARGS="put --quick", say
	@exec $(BIN)/python -m bench $(ARGS)

$(AUDIT)/.installed-from-lock: audit.lock
	@echo "==> installing the tools of audit and sbom into $(AUDIT)"
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement audit.lock
	@touch $@

audit: $(AUDIT)/.installed-from-lock ## known vulnerabilities of what the lock pins (asks a public service; not in CI)
	@$(AUDIT)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict $(ARGS)

sbom: $(STAMP) $(AUDIT)/.installed-from-lock ## what .venv holds, as a CycloneDX file; the same twice for the same lock
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json \
		$(BIN)/python
	@echo "sbom.cdx.json"

COMPILE := uv pip compile --generate-hashes --universal --python-version 3.11 --no-emit-index-url --custom-compile-command "make lock"
PART := $(COMPILE) --quiet --no-annotate --constraint requirements.lock

lock: ## pin the newest versions that pyproject.toml allows (needs uv)
	$(COMPILE) pyproject.toml --all-extras --upgrade --output-file requirements.lock
	$(PART) pyproject.toml --extra ingest --output-file services/ingest/requirements.lock
	$(PART) pyproject.toml --extra uploader --output-file services/uploader/requirements.lock
	echo setuptools | $(PART) - --output-file deploy/images/build.lock
	$(COMPILE) --group audit --upgrade --output-file audit.lock
	$(COMPILE) --group bench --upgrade --output-file bench.lock

clean: ## forget everything that was built or stored here
	rm -rf $(VENV) $(AUDIT) $(PROFILER) sbom.cdx.json .run .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
