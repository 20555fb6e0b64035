#!/usr/bin/env bash
# Makes .venv in the project's folder: a Python that fits, the build of MXNet that this machine can run, exact pins.
# A later call finds it made; what was interrupted, or no longer agrees with the pins, is made anew.
set -euo pipefail

usage="usage: bash scripts/setup.sh [--cpu | --gpu] [--python COMMAND] [--dev]
  --cpu, --gpu      this build of MXNet, now and in later calls (else the GPU's where libcuda.so.1 loads)
  --python COMMAND  this Python, like \$PYTHON (else the newest of 3.9 to 3.12 on PATH)
  --dev             linters and test tools too"
install_hint="install one (Debian, Ubuntu: apt-get install python3 python3-venv; elsewhere: pyenv install 3.11)\
 or name one (bash scripts/setup.sh --python COMMAND)."

say() { echo "setup: $*"; }
fail() {
  echo "error: $*" >&2
  exit 1
}

build="" python=${PYTHON:-} dev=""
while [ $# -gt 0 ]; do
  case $1 in
    --cpu | --gpu) build=${1#--} ;;
    --python)
      [ $# -gt 1 ] || { echo "$usage" >&2 && exit 2; }
      python=$2
      shift ;;
    --dev) dev=yes ;;
    -h | --help) echo "$usage" && exit 0 ;;
    *) echo "error: unknown argument $1"$'\n'"$usage" >&2 && exit 2 ;;
  esac
  shift
done

# `python` and `version` become the Python that was asked for, or the newest on PATH that fits.
choose_python() {
  local command found minor newest=0 tried=""
  local commands=(python3.12 python3.11 python3.10 python3.9 python3 python)
  [ -z "$python" ] || commands=("$python")
  for command in "${commands[@]}"; do
    found=$(version_of "$command")
    minor=${found#3.} minor=${minor%%.*}
    case $found in
      "") [ -z "$python" ] || tried+="; $python does not run" ;;
      3.9.* | 3.10.* | 3.11.* | 3.12.*)
        if ! "$command" -c 'import ensurepip, venv' 2>/dev/null; then
          tried+="; $command ($found) has no venv module"
        elif [ "$minor" -gt "$newest" ]; then
          newest=$minor python=$command version=$found
        fi ;;
      *) tried+="; $command is $found" ;;
    esac
  done
  tried=${tried#; }
  [ "$newest" -gt 0 ] ||
    fail "MXNet 1.9.1 and NumPy 1.26.4 need Python 3.9 to 3.12 (${tried:-none is on PATH}); $install_hint"
}

# X.Y.Z of a Python that runs: a command may be there and fail, as pyenv's shims do.
version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }

# The Python under an active $venv, which is about to be deleted; before 3.11 sys._base_executable does not tell.
base_of() {
  "$1" -c 'import os, sys
base = "%s/bin/python%d.%d" % (sys.base_prefix, *sys.version_info[:2])
print(base if os.path.exists(base) else sys.executable)'
}

# The step $1 was finished with the fingerprint $2.
finished() { [ "$(cat "$state/$1" 2>/dev/null)" = "$2" ]; }

fingerprint() { { echo "$PWD $version $build" && cat "$@"; } | sha256sum; }

# Installs the requirement files. Without dependencies: they list everything (see requirements-common.txt).
install() {
  local log=$state/pip.log
  if ! "$venv/bin/python" -m pip install --quiet --no-deps --only-binary :all: "$@" >"$log" 2>&1; then
    ! grep -qE 'Temporary failure in name|NameResolution|NewConnection|ConnectTimeout|ProxyError|unreachable' "$log" ||
      fail "the package index cannot be reached; connect this machine, or name a mirror (PIP_INDEX_URL) or a proxy\
 (HTTPS_PROXY), and call again. pip's log: $log"
    grep '^ERROR' "$log" >&2 || tail -n 20 "$log" >&2
    fail "pip could not install the packages. Its log: $log"
  fi
}

case $python in /*) ;; */*) python=$PWD/$python ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv state=.venv/setup-state
unset PYTHONHOME PYTHONPATH # they would bring in another Python's packages
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

if command -v flock >/dev/null; then
  exec 9<scripts/setup.sh
  flock -n 9 || { say "waiting for another call" && flock 9; }
fi
[ ! -e $venv ] || [ -d $state ] ||
  fail "$PWD/$venv was not made by this script; move it away (mv $venv $venv.old) and call again."

version=$(version_of $venv/bin/python)
if [ -n "$python" ] || [ -z "$version" ]; then choose_python; fi
asked=${build:-$(cat $state/build 2>/dev/null || true)}
build=$asked
driver=yes
"${python:-$venv/bin/python}" -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null || driver=""
if [ -n "$build" ]; then
  why="as asked"
elif [ -n "$driver" ]; then
  build=gpu why="the NVIDIA driver is there"
else
  build=cpu why="no NVIDIA driver"
fi
case $build in
  cpu) requirements="requirements-cpu.txt" size="" ;;
  gpu) requirements="requirements.txt" size=" (about 2.3 GB to fetch)" ;;
esac
files=("$requirements" "scripts/requirements-mxnet-$build.txt" scripts/requirements-common.txt)

if ! finished packages "$(fingerprint "${files[@]}")"; then
  choose_python
  python=$(base_of "$python")
  say "Python $version ($python), MXNet for the ${build^^} ($why)"
  rm -rf $venv
  mkdir -p $state
  "$python" -m venv $venv >"$state/venv.log" 2>&1 || fail "$python could not make $venv: $(tail -n 3 "$state/venv.log")"
  say "installing the packages of $requirements$size"
  install -r "$requirements"
  echo "$PWD" >"$venv/lib/python${version%.*}/site-packages/gan_kd.pth" # `import gan_kd` from any folder
  if [ "$build" = gpu ] && [ -z "$driver" ]; then # as in an image built for other machines
    say "MXNet's GPU build is not tried: it loads only where the NVIDIA driver is"
  else
    problem=$($venv/bin/python -c 'import sys; from gan_kd.commands.doctor import import_problem; sys.exit(import_problem())' 2>&1) ||
      fail "${problem:-MXNet does not load: exit code $?}"
  fi
  fingerprint "${files[@]}" >$state/packages
fi
[ -z "$asked" ] || echo "$asked" >$state/build
if [ -n "$dev" ] && ! finished dev "$(fingerprint scripts/requirements-dev.txt)"; then
  say "installing the tools of scripts/requirements-dev.txt"
  install --ignore-installed -r scripts/requirements-dev.txt # over what an interrupted call left
  fingerprint scripts/requirements-dev.txt >$state/dev
fi
say "$venv is ready (Python $version, MXNet for the ${build^^})"
