# Needs Python 3.11 or newer (with pip and venv), make and git; all else goes into .venv.

# The first name that is new enough; evaluated only where it is used.
SYSTEM_PYTHON = $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && exit; done)
PYTHON := .venv/bin/python
# What to test and how: make test ARGS="tests/calls -x"
ARGS ?=
# Which claim to prove: make prove CLAIM=protocol-model; LONG=1 for the long form
CLAIM ?=
RIVALS := .cache/rivals

# Trust the certificates that the machine trusts, as pip does.
export UV_SYSTEM_CERTS ?= true

.PHONY: help env demo test prove rivals check fmt lock upgrade docs vendor clean

help:
	@echo 'make demo     set up everything and watch governed agents work on a real tracker'
	@echo 'make test     run all tests; ARGS="tests/calls -x" runs some'
	@echo 'make prove    list the claims that are measured; CLAIM=protocol-model proves one'
	@echo 'make rivals   install what the claim "throughput" compares with, in a place of its own'
	@echo 'make check    lint, types, import contracts, lock files, the built wheel'
	@echo 'make fmt      format the code and mend what ruff can mend'
	@echo 'make lock     bring the lock files to pyproject.toml; "make upgrade" takes new versions'
	@echo 'make docs     rewrite what follows from the code: reference pages, schemas for editors'
	@echo "make vendor   refresh the console's front-end files from npm, as their manifest lists them"
	@echo 'make clean    remove what make and the tools have made'

env:
	@python='$(SYSTEM_PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo 'set-up: Python 3.11 or newer is needed, and none of python3, python3.14 ... python3.11 is' >&2; exit 1; \
	fi; \
	"$$python" scripts/bootstrap.py

demo: env
	@$(PYTHON) -m examples.service_desk.demo

test: env
	@TEST_BROWSER="$$($(PYTHON) scripts/browser.py)" && export TEST_BROWSER && \
	$(PYTHON) -m pytest -n 2 --dist worksteal $(ARGS)

prove: env
	@$(PYTHON) -m proofs $(CLAIM)

rivals: env
	$(PYTHON) -m venv --without-pip $(RIVALS)
	.venv/bin/uv pip sync --quiet --require-hashes --python $(RIVALS) requirements/rivals.txt

check: env
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(PYTHON) .venv/bin/lint-imports --no-cache
	$(PYTHON) scripts/lock.py --check
	$(PYTHON) scripts/wheel.py

fmt: env
	$(PYTHON) -m ruff check --fix --exit-zero
	$(PYTHON) -m ruff format

lock: env
	$(PYTHON) scripts/lock.py

upgrade: env
	$(PYTHON) scripts/lock.py --upgrade

docs: env
	$(PYTHON) scripts/reference.py
	$(PYTHON) scripts/schemas.py

vendor: env
	$(PYTHON) scripts/vendor.py

clean:
	rm -rf .venv .cache .interlock build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts examples proofs -name __pycache__ -type d -exec rm -rf {} +
