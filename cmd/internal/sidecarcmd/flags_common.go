package sidecarcmd

// commonFlags are those of both verbs. They may stand before the verb.
func (o *options) commonFlags() []flag {
	var all []flag
	for _, flags := range [][]flag{o.identityFlags(), o.timeFlags(), o.limitFlags(), o.watchFlags(), o.processFlags()} {
		all = append(all, flags...)
	}
	for i := range all {
		all[i].global = true
	}
	return all
}

func (o *options) identityFlags() []flag {
	return []flag{
		{name: "use-workload-api", group: groupIdentity, into: &o.workloadAPI, key: "workload_api",
			help: "take identity and bundles from the SPIFFE Workload API at $SPIFFE_ENDPOINT_SOCKET, else of this machine's agent; they rotate by themselves"},
		{name: "use-workload-api-addr", group: groupIdentity, into: &o.workloadAddr, key: "workload_api", env: "SPIFFE_ENDPOINT_SOCKET",
			help: "the same, from `ADDR`: unix:///PATH or tcp://IP:PORT"},
		{name: "use-workload-api-timeout", group: groupIdentity, into: &o.workloadTimeout, key: "identity_timeout",
			help: "exit 1 if there is no identity after this `DURATION`; connections are taken meanwhile and wait up to --connect-timeout (default 0: wait for ever)"},
		{name: "spiffe-id", group: groupIdentity, into: &o.spiffeID, key: "spiffe_id", own: true, help: "which `ID` to be, where the Workload API offers several (default the first)"},
		{name: "hint", group: groupIdentity, into: &o.hint, key: "hint", own: true, help: "which identity to be, by the `TEXT` its registration has as hint; conflicts with --spiffe-id"},
		{name: "cert", group: groupIdentity, into: &o.cert, key: "cert", env: "CERT_PATH", help: "PEM `FILE` with the certificate and those up to the CA's, own first; with --key"},
		{name: "key", group: groupIdentity, into: &o.key, key: "key", env: "KEY_PATH", help: "PEM `FILE` with its private key, not encrypted"},
		{name: "keystore", group: groupIdentity, into: &o.keystore, key: "keystore", env: "KEYSTORE_PATH", help: "`FILE` with certificate and key: PEM, PKCS#12 (.p12, .pfx) or JCEKS"},
		{name: "storepass", group: groupIdentity, into: &o.storePass, key: "store_pass", env: "KEYSTORE_PASS",
			help: "`PASSWORD` of the keystore; others on this machine see it in the list of processes: prefer the variable"},
		{name: "cacert", group: groupIdentity, into: &o.caCert, key: "ca_cert", env: "CACERT_PATH",
			help: "PEM `FILE` with the CAs that peers are verified by (default the system's); not used with the Workload API, which brings bundles"},
		{name: "trust-bundle", group: groupIdentity, into: &o.trustBundles, key: "trust_bundle", own: true,
			help: "`DOMAIN=FILE`: the certificate files are SVIDs, and peers of DOMAIN are verified by SPIFFE ID with the bundle in FILE, PEM or JWKS; conflicts with --cacert; may be repeated"},
		{name: "pkcs11-module", group: groupIdentity, into: &o.pkcs11Module, key: "pkcs11_module", env: "PKCS11_MODULE",
			help: "the private key of --cert is in a token: `FILE` of the PKCS#11 library; needs a binary built with it"},
		{name: "pkcs11-token-label", group: groupIdentity, into: &o.pkcs11Label, key: "pkcs11_token_label", env: "PKCS11_TOKEN_LABEL", help: "`LABEL` of the token"},
		{name: "pkcs11-pin", group: groupIdentity, into: &o.pkcs11PIN, key: "pkcs11_pin", env: "PKCS11_PIN",
			help: "`PIN` of the token; others on this machine see it in the list of processes: prefer the variable"},
		{name: "alpn", group: groupIdentity, into: &o.alpn, key: "alpn", own: true,
			help: "agree on `PROTOCOL` with the peer, such as h2 or http/1.1 (ALPN); needed by gRPC; may be repeated, the first is preferred (default none)"},
		{name: "max-tls-version", group: groupIdentity, into: &o.maxTLS, key: "max_version"},
		{name: "cipher-suites", group: groupIdentity, into: &o.cipherSuites, key: "cipher_suites"},
		{name: "allow-unsafe-cipher-suites", group: groupIdentity, into: &o.unsafeCiphers, key: "cipher_suites"},
		{name: "no-resumption", group: groupIdentity, into: &o.noResumption, key: "no_resumption", own: true},
		{name: "timed-reload", group: groupIdentity, into: &o.timedReload, key: "timed_reload",
			help: "read certificate, CA and policy files again every `DURATION` (default 0: at SIGHUP or SIGUSR1 only); one that is broken leaves the old in use"},
		{name: "watch", group: groupIdentity, into: &o.watch, key: "watch", own: true, help: "read certificate and CA files again when they change"},
	}
}

func (o *options) timeFlags() []flag {
	return []flag{
		{name: "connect-timeout", group: groupTimes, into: &o.connect, key: "connect_timeout",
			help: "`DURATION` a new connection has, for identity, handshake and reaching the target together; not 0"},
		{name: "close-timeout", group: groupTimes, into: &o.closing, key: "close_timeout",
			help: "once one side has said its last, end the connection after this `DURATION` without a byte from the other; 0: at once"},
		{name: "idle-timeout", group: groupTimes, into: &o.idle, key: "idle_timeout", own: true,
			help: "end connections after this `DURATION` without a byte either way (default 0: never); not for programs that wait long, such as Redis subscribers"},
		{name: "max-conn-lifetime", group: groupTimes, into: &o.maxAge, key: "max_age",
			help: "end connections this `DURATION` after their handshake, whatever they do (default 0: never)"},
		{name: "shutdown-timeout", group: groupTimes, into: &o.shutdown, key: "shutdown_timeout",
			help: "`DURATION` that open connections may go on after SIGTERM; exit 1 if some had to be cut"},
		{name: "drain-idle", group: groupTimes, into: &o.drainIdle, key: "drain_idle", own: true,
			help: "after SIGTERM, close connections once nothing moved for this `DURATION`; 0: they may stay until --shutdown-timeout"},
		{name: "tcp-keep-alive", group: groupTimes, into: &o.keepAlive, key: "keep_alive", own: true,
			help: "probe silent peers every `DURATION`; gone after 9 unanswered probes; 0: never"},
		{name: "tcp-user-timeout", group: groupTimes, into: &o.userTimeout, key: "user_timeout", own: true,
			help: "give a peer up that leaves sent bytes unacknowledged for this `DURATION` (default 0: the kernel's, about 15m)"},
	}
}

func (o *options) limitFlags() []flag {
	return []flag{
		{name: "max-concurrent-conns", group: groupTimes, into: &o.maxConns, key: "connections",
			help: "`N` connections at most at once, more wait to be accepted (default 0: no limit)"},
		{name: "max-conns-per-peer", group: groupTimes, into: &o.perPeer, key: "per_peer", own: true,
			help: "`N` connections at most of one peer identity, more are refused (default 0: no limit)"},
		{name: "max-handshakes", group: groupTimes, into: &o.handshakes, key: "handshakes", own: true,
			help: "`N` handshakes at most at once, more wait to be accepted; so a flood of them leaves open connections alone"},
		{name: "reuse-port", group: groupTunnel, into: &o.reusePort, key: "reuse_port", own: true,
			help: "share the ports with other processes that ask for it too (SO_REUSEPORT); not without need: a forgotten process takes half of the connections"},
		{name: "socket-mode", group: groupTunnel, into: &o.socketMode, key: "socket_mode", own: true,
			help: "`PERMISSIONS` of a unix: socket listened on; who may write to it acts under this identity"},
		{name: "skip-resolve", group: groupTunnel, into: &o.skipResolve, key: "skip_resolve",
			help: "start even if the name in --target can't be resolved yet"},
	}
}

func (o *options) watchFlags() []flag {
	flags := []flag{
		{name: "status", group: groupWatch, into: &o.status, key: "status",
			help: "serve /_status, /_metrics and what else is enabled on `ADDR`: [http[s]://]HOST:PORT, unix:PATH or systemd:NAME; HTTPS unless http:// is given; nobody is asked who he is, so keep it local"},
		{name: "enable-pprof", group: groupWatch, into: &o.pprof, key: "pprof", help: "serve /debug/pprof there too; needs --status"},
		{name: "enable-shutdown", group: groupWatch, into: &o.shutdownEndpoint, key: "shutdown", help: "serve POST /_shutdown there too, which ends this process; needs --status"},
		{name: "metrics-prefix", group: groupWatch, into: &o.metricsPrefix, key: "metrics_prefix", help: "`TEXT` before the names of metrics in JSON and Graphite"},
		{name: "metrics-interval", group: groupWatch, into: &o.metricsInterval, key: "metrics_interval", help: "`DURATION` between two pushes"},
		{name: "metrics-graphite", group: groupWatch, into: &o.graphite, key: "metrics_graphite", help: "push metrics to the Graphite at `HOST:PORT`, in plain text"},
		{name: "metrics-url", group: groupWatch, into: &o.metricsURL, key: "metrics_url", help: "push metrics to `URL` by POST of JSON; http:// or https://"},
		{name: "quiet", group: groupWatch, into: &o.quiet, key: "quiet",
			help: "leave out of the log `WHAT`: all, conns (connections), conn-errs (those that failed), handshake-errs; may be repeated"},
		{name: "syslog", group: groupWatch, into: &o.syslog, key: "syslog", help: "log to the system's log (facility daemon); conflicts with --log-file"},
	}
	return append(flags, o.logFlags()...)
}

func (o *options) logFlags() []flag {
	return []flag{
		{name: "log-level", group: groupWatch, into: &o.logs.Level, key: "log_level", own: true, help: "`LEVEL` from which to log: debug, info, warn or error (default info)"},
		{name: "log-format", group: groupWatch, into: &o.logs.Format, key: "log_format", own: true, help: "`text|json` (default text; on a terminal coloured and short)"},
		{name: "log-file", group: groupWatch, into: &o.logs.File, key: "log_file", own: true, help: "`FILE` to append the log to (default standard output)"},
		{name: "log-source-location", group: groupWatch, into: &o.logs.Source, key: "log_source_location", own: true, help: "log where in the code each line comes from"},
	}
}

func (o *options) processFlags() []flag {
	return []flag{
		{name: "disable-landlock", group: groupProcess, into: &o.disableLandlock, key: "sandbox",
			help: "don't give up what is not needed (files and ports, by the kernel's Landlock); for when something legitimate is refused"},
		{name: "use-landlock", group: groupProcess, into: &o.useLandlock, key: "sandbox"},
	}
}
