#!/bin/sh
# kube.sh [FOLDER] builds the real kube-apiserver and kubelet, of the version pinned here, from the Go module proxy into
# FOLDER (.tools/kube unless said), and leaves alone what is there already. Together they take about six minutes of one core and
# 2 GB of Go's build cache, so `make test` only uses what is there; `make soak` runs this first. Tests find them there or
# in the folder $LANYARD_KUBE names. kube-apiserver keeps its objects in an etcd, which the tests start themselves; what
# else a kubelet needs is Debian's: deps.sh kubelet.
set -eu
version=1.34.1
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../.tools/kube}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
mod=$dir/mod
export GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=0
go=${GO:-go}

# The staging repositories, k8s.io/api and so on, are released as v0.MINOR.PATCH beside v1.MINOR.PATCH; the module
# file of kubernetes itself names them v0.0.0 and replaces them by folders, which only its own tree has.
module() {
	rm -rf "$mod"
	mkdir -p "$mod"
	theirs=$(cd "$mod" && $go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^[[:space:]]*"GoMod": "\(.*\)",*$/\1/p')
	{
		echo "module kube"
		sed -n 's/^go \(.*\)/go \1/p' "$theirs"
		echo "require k8s.io/kubernetes v$version"
		sed -n "s/^[[:space:]]*\(k8s\.io\/[^ ]*\) v0\.0\.0\( .*\)\{0,1\}$/replace \1 => \1 v0.${version#1.}/p" "$theirs"
	} >"$mod/go.mod"
	{
		printf '//go:build tools\n\npackage tools\n\n'
		for name in kube-apiserver kubelet; do printf 'import _ "k8s.io/kubernetes/cmd/%s"\n' $name; done
	} >"$mod/tools.go"
}

stamp=k8s.io/component-base/version
minor=${version#1.}
for name in kube-apiserver kubelet; do
	if [ -x "$dir/$name" ] && [ "$("$dir/$name" --version)" = "Kubernetes v$version" ]; then continue; fi
	[ -f "$mod/go.mod" ] && grep -q "v$version" "$mod/go.mod" || module
	printf 'kube: building %s %s in %s, some minutes\n' $name "$version" "$dir"
	(cd "$mod" && nice "$go" build -p "${KUBE_JOBS:-1}" -trimpath -o "$dir/$name.new" -ldflags \
		"-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" \
		"k8s.io/kubernetes/cmd/$name")
	mv "$dir/$name.new" "$dir/$name"
done
