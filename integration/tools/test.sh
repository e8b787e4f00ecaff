#!/bin/sh
# test.sh is `make test`: what the tests need, the linters, the binaries, every test, and what was skipped.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p .tools
LANYARD_SKIPS=$PWD/.tools/skips.$$
export LANYARD_SKIPS
: >"$LANYARD_SKIPS"
trap 'rm -f "$LANYARD_SKIPS"' EXIT INT TERM

integration/tools/deps.sh gcc curl envoy python
integration/tools/lint.sh
make -s build
LANYARD_BIN=$PWD/bin go run ./integration/tools/testall "$@"
