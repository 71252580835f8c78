# `make help` lists the targets. Every target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The version is said once, in uv.lock. A uv that this machine has may be another one and is not used.
UV_VERSION := $(shell sed -n '/^name = "uv"$$/{n;s/^version = "\(.*\)"/\1/p}' uv.lock)
UV := .tools/bin/uv
export UV_PYTHON ?= >=3.11
RUN := $(UV) run --frozen
PYTEST := $(RUN) pytest
INVENTORY ?= inventory/lab.yml
RUNS ?= 100000
LAB_INVENTORY := inventory/lab.yml
PYINFRA_INVENTORY = $(INVENTORY:.yml=.py)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

##: set-up -------------------------------------------------------------------------------------------
.PHONY: setup
setup: .venv/.synced ## install what is missing: Debian packages (as root), uv, the virtual environment

# The programs in there name the directory by its path: one that was moved is set up anew.
ifneq ($(shell cat .venv/.synced 2>/dev/null || pwd),$(shell pwd))
$(shell rm -rf .venv .tools)
endif
.venv/.synced: pyproject.toml uv.lock lab/setup lab/setup-python lab/requirements.apt
	@lab/setup
	@lab/setup-python $(UV_VERSION)
	@pwd >$@

##: the two commands ----------------------------------------------------------------------------------
.PHONY: demo
demo: setup lab-check bundle lab-up deploy verify rollback-drill ## fresh machine -> lab fleet deployed, verified, one part rolled back

# Molecule's scenario leaves its Windows host to the lab tests, which add the rest of a fleet to it.
.PHONY: test
test: export MT5CRS_WINDOWS_LAB := winmol
test: setup ## everything CI demands: lint, types, unit, faults, lab fleet, Molecule
	@begin=$$SECONDS; for stage in $(TEST_STAGES); do \
	  from=$$SECONDS; stage=$${stage//+/ }; echo "=== $$stage"; \
	  case $$stage in *' '*) beside='--jobs 2 --output-sync=target' ;; *) beside= ;; esac; \
	  $(MAKE) $$beside $$stage || { echo "=== $$stage FAILED after $$((SECONDS - from)) s; again: make $$stage"; exit 1; }; \
	  echo "=== $$stage passed in $$((SECONDS - from)) s"; \
	done; echo "=== all of: $(TEST_STAGES) passed in $$((SECONDS - begin)) s"
# Joined by +: side by side, the output of each at its end.
TEST_STAGES := test-fresh+lint unit faults+images-test windows-contract+molecule lab-test verify

.PHONY: rollback-drill
rollback-drill: setup ## change one setting of the reconciler on the lab, then roll it back by tag
	@echo "drill: a new reconciler generation with another re-check interval"
	$(RUN) ansible-playbook -i $(LAB_INVENTORY) site.yml --tags reconciler -e '{"reconciler_recheck_interval_s": 7}'
	@echo "drill: back to the previous generation (code, .env and unit)"
	$(RUN) ansible-playbook -i $(LAB_INVENTORY) rollback.yml --tags reconciler

.PHONY: quick
quick: setup ## while you change something: checks, types and unit tests of what changed (BASE=<commit>: since then)
	@$(RUN) python -m tests.quick $(if $(BASE),--base '$(BASE)')

##: parts of the test ---------------------------------------------------------------------------------
.PHONY: test-fresh
test-fresh: setup ## set-up, bundle and every import on an empty Debian 12: clone, home and variables are new
	$(RUN) python -m tests.fresh

.PHONY: test-fresh-long
test-fresh-long: setup ## the same and the unit tests, on Debian 12 and 13 (DEBIAN=13: on that one)
	for each in $(or $(DEBIAN),12 13); do $(RUN) python -m tests.fresh --debian $$each --units; done

.PHONY: workflow-run
workflow-run: setup ## the steps of ci.yml's light jobs, as GitHub runs them, on an empty Debian (minutes)
	$(RUN) python -m tests.fresh --debian 13 --workflow

.PHONY: format
format: setup ## format the code
	@$(RUN) ruff format . && $(RUN) ruff check --fix-only --quiet .

.PHONY: lint
lint: setup ## ruff, mypy strict, import-linter, yamllint, actionlint, zizmor, ansible-lint (profile production)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) mypy --platform win32 -p mt5crs_release
	$(RUN) lint-imports --no-logo --no-cache
	$(RUN) yamllint --strict .
	$(RUN) actionlint
	$(RUN) zizmor --offline --persona auditor --quiet --no-progress .
	$(RUN) ansible-lint --offline -q

.PHONY: unit
unit: setup ## unit tests
	$(PYTEST) tests/unit --numprocesses 4 --dist worksteal --durations=10

.PHONY: unit-reversed
unit-reversed: setup ## the same with the files in reverse order, three processes: no test may need what another left
	$(PYTEST) tests/unit --numprocesses 3 --dist worksteal --reversed

.PHONY: windows-contract
windows-contract: setup ## under Wine: the real MetaTrader5 package, its wheels, gateways and their terminal processes
	$(PYTEST) tests/windows_contract -m 'not slow'

.PHONY: windows-contract-long
windows-contract-long: setup ## the same, and all of the bundle's Windows wheels installed by pip (minutes)
	$(PYTEST) tests/windows_contract

# What the tests start is measured, too: services, forks, commands (pyproject.toml, tool.coverage).
.PHONY: coverage
coverage: setup ## unit tests; branches that ran, by package, in every process: 85 % overall, no package below 70
	@mkdir -p reports/coverage && rm -f reports/coverage/unit*
	COVERAGE_FILE=$(CURDIR)/reports/coverage/unit \
	  $(PYTEST) tests/unit --cov --cov-report= --numprocesses 4 --dist worksteal
	@$(RUN) coverage json -q --data-file reports/coverage/unit -o reports/coverage/unit.json
	@$(RUN) python -m pipeline coverage reports/coverage/unit.json --json reports/pipeline/coverage.json

.PHONY: coverage-labs
coverage-labs: setup bundle lab-up ## make lab-test, measured on the controller, together with what make coverage has measured
	@test -f reports/coverage/unit || { echo 'coverage-labs: what the unit tests cover is not known: run `make coverage`' >&2; exit 1; }
	@rm -f reports/coverage/labs* reports/coverage/all*
	COVERAGE_FILE=$(CURDIR)/reports/coverage/labs $(MAKE) lab-test COVERED=yes
	@$(RUN) coverage combine -q --keep --data-file reports/coverage/all reports/coverage/unit reports/coverage/labs
	@$(RUN) coverage json -q --data-file reports/coverage/all -o reports/coverage/all.json
	@$(RUN) python -m pipeline coverage reports/coverage/all.json --labs --json reports/pipeline/coverage-labs.json

.PHONY: faults
faults: setup ## kill -9, ENOSPC and EIO injected into the release tool (bounded)
	$(PYTEST) tests/faults --ignore tests/faults/fleet --numprocesses 2 --dist worksteal

.PHONY: faults-long
faults-long: setup ## the same at every single system call (hours)
	MT5CRS_FAULT_CASES=0 $(PYTEST) tests/faults --ignore tests/faults/fleet --timeout 0 \
	  --numprocesses 2 --dist worksteal

.PHONY: faults-fleet
faults-fleet: setup bundle ## controller killed, roll-outs good and bad under order flow (bounded; lab of its own)
	$(PYTEST) tests/faults/fleet --budget 600 -m "not slow"

.PHONY: faults-fleet-long
faults-fleet-long: setup bundle ## every phase, hosts and lines lost, 50 roll-outs under order flow (hours)
	MT5CRS_ROLL_OUTS=50 $(PYTEST) tests/faults/fleet --timeout 0

.PHONY: attack
attack: setup bundle lab-up ## every attack of a peer, one by one, on the lab while a strategy trades: figures and alerts (minutes)
	$(PYTEST) tests/lab/test_attacks.py --timeout 900 --budget 120 -s

.PHONY: states-long
states-long: setup ## random histories of the trading state machines (RUNS=100000 each: half a day); goes on where it was stopped
	$(RUN) python -m tests.histories --runs $(RUNS)

.PHONY: kills-long
kills-long: setup ## the terminal process killed at random moments of random histories (RUNS=10000: a quarter of an hour)
	MT5CRS_KILLS=$(RUNS) $(PYTEST) tests/unit/gateway/test_killed_terminal.py -s --timeout 0

.PHONY: mutations
mutations: setup ## break the trading core on purpose, one fault at a time: a test must go red for each (minutes)
	$(RUN) python -m tests.mutations

.PHONY: review-recall
review-recall: setup ## how many defects, put in on purpose, gate 1 of the review finds, by class (minutes)
	$(RUN) python -m tests.recall

.PHONY: images-test
images-test: setup bundle ## images built, the stack of compose.yml up, checked, killed -9, down
	$(PYTEST) tests/images --budget 60 --timeout 300 -m "not slow"

.PHONY: images-long
images-long: setup bundle ## the same; images for arm64, built twice and tried (needs qemu-user-static); the Containerfile (minutes)
	$(PYTEST) tests/images --budget 300 --timeout 900

.PHONY: lab-test
lab-test: setup bundle lab-up ## end-to-end tests and fleet faults (bounded), four files at a time, each on its lab fleet
	$(PYTEST) tests/lab tests/faults/fleet --timeout 900 --budget 120 -m "not slow" \
	  --numprocesses 4 --dist loadfile --no-loadscope-reorder --durations=10 $(if $(COVERED),--cov --cov-report=)
	$(if $(MT5CRS_WINDOWS_LAB),$(RUN) molecule destroy -s windows)

.PHONY: lab-test-long
lab-test-long: setup bundle lab-up ## all of them, also what only repeats a check (make long-list)
	$(PYTEST) tests/lab --ignore tests/lab/lifecycle/test_matrix.py --timeout 900 --budget 120

.PHONY: lifecycle-long
lifecycle-long: setup bundle ## every change of a fleet's life, each walk, both engines, under order flow (many hours; PAIRS=1: half)
	MT5CRS_LIFECYCLE_PAIRS=$(PAIRS) $(PYTEST) tests/lab/lifecycle -m slow --timeout 0 -s

.PHONY: long-list
long-list: setup ## what only the long targets run, and why
	@$(PYTEST) tests/lab tests/faults/fleet --long-list -m slow -q

.PHONY: verify
verify: setup ## testinfra suite against INVENTORY (default: the lab)
	$(PYTEST) tests/verify --inventory $(INVENTORY) --numprocesses 3 --dist worksteal

.PHONY: molecule
molecule: setup bundle ## Molecule scenarios default, rollback and windows (on the modelled host)
	@$(MAKE) --jobs 2 --output-sync=target molecule-linux molecule-windows

.PHONY: molecule-linux molecule-windows
# The fleet is as the first scenario has left it: converged.
molecule-linux: setup bundle ## scenario default, then rollback on the fleet that it leaves
	$(RUN) molecule destroy -s default
	$(RUN) molecule test -s default --destroy never
	$(RUN) molecule side-effect -s rollback
	$(RUN) molecule verify -s rollback
	$(RUN) molecule destroy -s rollback

molecule-windows: setup bundle ## scenario windows
	$(RUN) molecule destroy -s windows
	$(RUN) molecule test -s windows $(if $(MT5CRS_WINDOWS_LAB),--destroy never)

.PHONY: bench
bench: setup ## all figures in one table, with their targets, the review among them (half an hour; BENCH=--quick: minutes)
	$(RUN) python -m tests.bench $(BENCH)

.PHONY: bench-deploy
bench-deploy: setup bundle ## seconds of deployments: pyinfra, Ansible, Ansible with Mitogen; 4 and 16 lab hosts
	$(RUN) --group bench python -m tests.bench.bench_deploy

.PHONY: bench-switch
bench-switch: setup bundle ## what a client that asks every 5 ms sees of a switch of generations (lab of its own)
	$(RUN) python -m tests.bench.bench_switch

##: from a commit to a proven fleet --------------------------------------------------------------------
# STRATEGY, STAGING and PRODUCTION (inventories; default: lab fleets), PER_SECOND and SECONDS_HELD (load test) choose.
PIPELINE := $(if $(STRATEGY),--strategy '$(STRATEGY)') $(if $(STAGING),--staging '$(STAGING)') \
  $(if $(PRODUCTION),--production '$(PRODUCTION)') $(if $(PER_SECOND),--per-second '$(PER_SECOND)') \
  $(if $(SECONDS_HELD),--seconds '$(SECONDS_HELD)')

.PHONY: pipeline
pipeline: setup ## quality, build, integration, deploy, after; goes on after the last stage of this commit that passed
	@$(RUN) python -m pipeline run $(PIPELINE)

.PHONY: pipeline-quality pipeline-build pipeline-integration pipeline-deploy pipeline-after
pipeline-quality: setup ## lint, types, unit tests with coverage, scans of the sources
pipeline-build: setup ## bundle, images, bills of materials, provenance; verified and scanned
pipeline-integration: setup ## faults, containers, lab fleets, performance ratios
pipeline-deploy: setup ## staging, then production (lab fleets unless STAGING and PRODUCTION name others)
pipeline-after: setup ## acceptance, load test of ten minutes
pipeline-quality pipeline-build pipeline-integration pipeline-deploy pipeline-after:
	@$(RUN) python -m pipeline run $(@:pipeline-%=%) $(PIPELINE)

.PHONY: scan scan-sources
scan-sources: setup ## those of them that need nothing built
	@$(RUN) python -m pipeline scan sources --json reports/scan.json

scan: setup ## secrets in history and images, advisories, licences, Debian fixes, review rules, bandit, zizmor: one table
	@$(RUN) python -m pipeline scan --json reports/scan.json

##: the lab and the fleet -----------------------------------------------------------------------------
.PHONY: bundle
bundle: setup ## build, lock, sign the release bundle into dist/
	@$(RUN) python -m deploy.bundle

.PHONY: images
images: setup bundle ## container images of the bundle into dist/, with bill of materials and signed provenance
	@$(RUN) python -m images build

.PHONY: images-arm64
images-arm64: setup ## the same for arm64, tried by an emulator (Debian's qemu-user-static)
	@$(RUN) python -m deploy.bundle --platform linux-arm64
	@$(RUN) python -m images build --architecture arm64

.PHONY: compose-up compose-check compose-down
compose-up: setup images ## the services as containers on this machine (compose.yml), and checks of what runs
	@$(RUN) python -m images up

compose-check: setup ## the checks of compose-up again
	@$(RUN) python -m images check

compose-down: setup ## stop them; what they know stays in volumes
	@$(RUN) python -m images down

.PHONY: strategy-bundle strategy-lock
strategy-bundle: setup ## build and sign the bundle of strategies/NAME.yml into dist/strategies/
	@$(RUN) python -m deploy.bundle --strategy '$(NAME)'

strategy-lock: setup ## write the lock file of strategies/NAME.yml, with the core's versions
	@$(RUN) python -m deploy.bundle --strategy '$(NAME)' --lock

.PHONY: lab-check
lab-check: setup ## tell whether this machine can boot a lab, and what is missing
	@$(RUN) python -m lab check

.PHONY: lab-up
lab-up: setup ## boot the default lab fleet (hub-01, inf-01, inf-02, gtw-01); RELEASE=12: on Debian 12, ubuntu24.04: on that
	@$(RUN) python -m lab up $(if $(RELEASE),--debian '$(RELEASE)')

.PHONY: lab-down
lab-down: setup ## remove the default lab fleet
	@$(RUN) python -m lab down

.PHONY: deploy
deploy: setup bundle ## deploy to INVENTORY with pyinfra (STRATEGY=rolling: in steps)
	@$(RUN) pyinfra -y $(PYINFRA_INVENTORY) deploy.py $(if $(STRATEGY),--data strategy='$(STRATEGY)')

.PHONY: docs
docs: setup ## regenerate what is generated: protocol, settings, commands, policy, go-no-go, argument_specs
	@$(RUN) python -m mt5crs.protocol.document
	@$(RUN) python -m deploy.argument_specs
	@$(RUN) python -m deploy.command_reference
	@$(RUN) python -m deploy.policy_reference
	@$(RUN) python -m deploy.preflight_reference

# `uv export` of what uv.lock has; pip takes nothing else with --require-hashes.
.PHONY: host-requirements
host-requirements: setup ## regenerate tests/host-requirements.txt, what the tests of host programs need, with hashes
	@$(UV) export --frozen --quiet --no-default-groups --group hosts --extra windows --no-emit-project --no-header \
	  --no-annotate --format requirements.txt --output-file tests/host-requirements.txt

.PHONY: clean
clean: ## remove build results and reports (not the lab, not keys)
	rm -rf dist reports .mypy_cache .ruff_cache .hypothesis .coverage*
