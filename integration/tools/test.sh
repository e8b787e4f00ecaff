#!/bin/sh
# test.sh is `make test`: what the tests need, the linters, the binaries, every test, and what was skipped.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p .tools
LANYARD_SKIPS=$PWD/.tools/skips.$$
export LANYARD_SKIPS
: >"$LANYARD_SKIPS"
trap 'rm -f "$LANYARD_SKIPS"' EXIT INT TERM

integration/tools/deps.sh gcc curl envoy python programs
integration/tools/deps.sh java & # the longest, and nothing before the tests needs it
java=$!
lint=0
integration/tools/lint.sh || lint=1
make -s build
CGO_ENABLED=0 go build -trimpath -o .tools/bin/testall ./integration/tools/testall
wait $java
LANYARD_BIN=$PWD/bin .tools/bin/testall "$@"
if [ $lint -ne 0 ]; then echo 'the tests passed, lint did not: see above'; fi
exit $lint
