#!/usr/bin/env bash
# The environment, the linters and every test. Arguments go to pytest: bash scripts/test.sh tests/models -k adapter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh --dev
.venv/bin/python -m ruff check
.venv/bin/python -m mypy
# A process a core (up to 8), each with one thread (tests/conftest.py): a test file's tests stay in one process.
.venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
