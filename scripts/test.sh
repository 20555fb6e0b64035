#!/usr/bin/env bash
# The environment, the linters and every test. Arguments go to pytest: bash scripts/test.sh tests/detectors -k adapter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh --dev
.venv/bin/python -m ruff check
.venv/bin/python -m mypy
# Two processes, each with whole files: what a file prepares once is then prepared once.
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
