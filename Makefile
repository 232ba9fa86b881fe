# Everything a Linux machine with Python >= 3.11 and make needs: no root, nothing installed outside .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.stamp
# Compiled code is kept, whatever the machine's habit: a run starts many a process of ours.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test fuzz check mutants format pictures wheel constraints clean

help:  ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY)  ## set up, then run the main scenario on real memfds and print its report
	$(BIN)/snapdrill run scenarios/demo.yaml

test: $(READY)  ## set up, then run every test; what this host cannot run is listed with its reason
	@for part in tests/unit "tests/integration tests/model tests/scenarios tests/tui"; do \
		$(BIN)/python -m pytest -n 0 -q --collect-only $$part >/dev/null & \
	done; wait  # compiles the tests once, not in every worker
	$(BIN)/python -m pytest -n 4 --dist worksteal --cov --cov-report=term

fuzz: $(READY)  ## feed odd documents to every command for as long as asked: make fuzz SECONDS=60
	FUZZ_SECONDS=$(or $(SECONDS),60) $(BIN)/python -m pytest -q -p no:cacheprovider tests/model/test_documents_fuzzed.py

check: $(READY)  ## lint, format, types and the dependency rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

mutants: $(READY)  ## set up, then try SAMPLE=100 small changes of engine/ and sim/rules/, drawn by SEED=1: do tests notice?
	$(BIN)/python tests/mutants.py $(or $(SAMPLE),100) $(or $(SEED),1) $(or $(JOBS),2)

format: $(READY)  ## format the code and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

pictures: $(READY)  ## draw the pictures of the README again, from the running screen
	$(BIN)/python -m sim.tui.pictures docs/pictures

wheel: $(READY)  ## build the wheel, shipped scenarios included, into dist/
	rm -rf build/lib
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

constraints:  ## pin again: every version and hash in constraints.txt, for all supported Pythons
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
	printf 'setuptools\nwheel\n' | build/uv/bin/uv pip compile --quiet --upgrade --universal --fork-strategy fewest \
		--python-version 3.11 --all-extras --generate-hashes --no-emit-index-url --no-header \
		--output-file constraints.txt pyproject.toml -

clean:  ## remove .venv, caches and what was built; runs/ stays
	rm -rf .venv build dist mutants snapdrill.egg-info .hypothesis .*_cache
	find engine flags sim tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snapdrill needs Python >= 3.11: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
