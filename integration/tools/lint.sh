#!/bin/sh
# lint.sh holds the module to gofmt, go vet, staticcheck and a tidy go.mod. Every check runs even when an
# earlier one failed.
set -u
cd "$(dirname "$0")/../.." || exit 1
# The same build as make build's, so that the compiled packages serve both.
export CGO_ENABLED=0 GOFLAGS="-trimpath -tags=grpcnotrace"
bad=0

check() { # WHAT COMMAND...: the command must succeed
	what=$1
	shift
	printf 'lint: %s\n' "$what"
	"$@" || { printf 'lint: %s: failed\n' "$what" >&2; bad=1; }
}

# shellcheck disable=SC2317 # called by check
formatted() {
	! gofmt -l . | sed 's/$/: run gofmt -w on it/' | grep .
}

# shellcheck disable=SC2317
tidy() {
	out=$(go mod tidy -diff 2>&1) || { printf '%s\n' "$out" | head -n 30; return 1; }
}

check gofmt formatted
check 'go vet' go vet ./...
check staticcheck go tool staticcheck ./...
check 'go mod tidy -diff' tidy
exit $bad
