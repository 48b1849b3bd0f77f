# workbook: everything, headless, with a report · test · lab: JupyterLab · student: notebooks without solutions, and
# `make lab NOTEBOOKS=build/student` opens them ·
# bench: the figures of the README ·
# mlflow: the server that keeps trainings with --mlflow http://127.0.0.1:5000, and shows those with --mlflow local
#   make workbook PROFILE=full DATA=/path/to/coco     (smoke: seconds, workshop: minutes, full: COCO and a GPU)
PROFILE ?= workshop
DATA    ?= data/synthetic
PYTHON3 ?= python3
PORT    ?= 5000
JOBS    ?= 2
NOTEBOOKS ?= notebooks
ENV     := $(or $(CONDA_PREFIX),.venv)
PYTHON  := $(ENV)/bin/python
STAMP   := $(ENV)/.pose-workbook
ROOTFUL := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: workbook test lab student bench mlflow data clean

workbook: data
	$(PYTHON) -m lib book --profile $(PROFILE) --data_dir $(DATA)

# a notebook's cells are tests too: parameterised copies, so that the notebooks themselves stay untouched, in which every
# exercise's check first has to refuse wrong answers
# JOBS files at a time, a core each
test: export OMP_NUM_THREADS ?= 1
test: data
	rm -rf build/notebooks build/proofs
	$(PYTHON) -m lib book --profile smoke --data_dir $(DATA) --write_only build/notebooks
	$(PYTHON) -m lib student --prove true --folder build/notebooks --out build/proofs
	$(PYTHON) -m pytest tests build/proofs -n $(JOBS) --dist loadfile \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=300

# the whole repository is in sight: results lie in runs/, and the notebooks speak of lib/ and data/;
# docs/jupyterlab keeps it from asking whether it may fetch news
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/docs/jupyterlab$(addprefix :,$(JUPYTER_CONFIG_PATH))
lab: $(STAMP)
	$(PYTHON) -m jupyterlab --ip=127.0.0.1 $(ROOTFUL) --ServerApp.root_dir='$(CURDIR)' $(NOTEBOOKS)/00_start_here.ipynb

# the notebooks without the solutions of their exercises, for those who are to find them
student: $(STAMP)
	$(PYTHON) -m lib student --out build/student

bench: $(STAMP)
	$(PYTHON) -m benchmarks

# for this machine alone: whoever reaches it may read and delete runs
mlflow: export MLFLOW_DISABLE_TELEMETRY ?= true
mlflow: export MLFLOW_SERVER_ENABLE_JOB_EXECUTION ?= false
mlflow: $(STAMP)
	mkdir -p runs/mlflow
	$(PYTHON) -m mlflow server --host 127.0.0.1 --port $(PORT) \
	    --backend-store-uri sqlite:///runs/mlflow/mlflow.db \
	    --no-serve-artifacts --default-artifact-root '$(CURDIR)/runs/mlflow/artifacts'

# at once when it is there already
data: $(STAMP)
	$(PYTHON) -m lib synthetic data/synthetic

clean:
	rm -rf build/notebooks build/proofs runs

# installs once, and again only when the list of dependencies changes; everything after that is offline
$(STAMP): pyproject.toml
	@$(if $(CONDA_PREFIX),,test -x $(PYTHON) || $(PYTHON3) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    f"the workbook needs Python 3.11 or newer, $(PYTHON3) is {v[0]}.{v[1]}: make PYTHON3=/path/to/python3.12")')
	test -x $(PYTHON) || $(PYTHON3) -m venv $(ENV)
	$(PYTHON) -m pip install --upgrade --quiet pip
	$(PYTHON) -m pip install -e '.[all]'
	@touch $@
