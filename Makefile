# Every target does its own set-up in .venv; the first one to run takes a few minutes (torch's CUDA build is large).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test lint check-slow bench clean

help:            ## Show this.
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  +##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(STAMP)  ## Install the package and its tools into .venv.

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hpo_ray needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(STAMP)   ## Run the main job: 24 trials with ASHA on bundled handwritten digits.
	$(BIN)/hpo-ray run experiment=digits
	$(BIN)/python -c "import hpo_ray; print(hpo_ray.load_results('runs/*').sort_values('val_error_best') \
	    .filter(regex='trial_id|status|fidelity|_best|config/').head(8).to_string(index=False))"

# Two halves side by side, of which this one computes more and the other waits more, mostly for Ray to start and end.
HALF := tests/data tests/domains tests/experiments tests/gp tests/loggers tests/models tests/report tests/results \
	tests/trainables tests/training tests/doctor/test_judge.py tests/doctor/test_visit.py \
	tests/submission/test_parcel.py tests/submission/test_request.py \
	tests/cluster/test_files.py tests/cluster/test_launchers.py tests/cluster/test_manifests.py \
	tests/test_bad_input.py tests/test_cli_models.py tests/test_config.py tests/test_confirm.py tests/test_folds.py \
	tests/test_layers.py tests/test_refit.py tests/test_scale.py tests/test_search_benchmarks.py tests/test_search_curves.py \
	tests/test_space.py

test: $(STAMP)   ## Lint, type-check and test.
	$(MAKE) --no-print-directory lint
	@echo "pytest {$(HALF)} (shown at the end) beside the other tests"; \
	$(BIN)/python -m pytest -m 'not slow' $(HALF) > .pytest-half.log 2>&1 & half=$$!; \
	$(BIN)/python -m pytest -m 'not slow' $(addprefix --ignore=,$(HALF)); other=$$?; \
	wait $$half; code=$$?; cat .pytest-half.log; rm -f .pytest-half.log; test $$code = 0 && test $$other = 0

lint: $(STAMP)   ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-slow: $(STAMP)  ## The tests that take minutes; Ray's jobs among them, which need its dashboard installed.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cluster]'
	$(BIN)/python -m pytest -m slow -rs

bench: $(STAMP)  ## Ratios against peers on the same work; tables in benchmarks/results/.
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/journal_cost.py
	$(BIN)/python benchmarks/scale_loop.py
	$(BIN)/python benchmarks/scale_ray.py
	$(BIN)/python benchmarks/results_load.py
	$(BIN)/python benchmarks/training_loop.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python benchmarks/feature_cache.py
	$(BIN)/python benchmarks/photographs.py
	$(BIN)/python benchmarks/search_latency.py
	$(BIN)/python benchmarks/search_quality.py --seeds 3 --minutes 30
	$(BIN)/python benchmarks/search_prior.py
	$(BIN)/python benchmarks/search_stopped.py
	$(BIN)/python benchmarks/importance.py --seeds 10
	$(BIN)/python benchmarks/best_pick.py

clean:           ## Remove what the targets made.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
