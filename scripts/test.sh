#!/usr/bin/env bash
# The environment, the linters and every test. Arguments go to pytest: bash scripts/test.sh tests/models -k adapter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh --dev
.venv/bin/python -m ruff check
.venv/bin/python -m mypy
.venv/bin/python -m pytest "$@"
