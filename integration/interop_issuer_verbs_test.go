package integration

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// verbs runs the real spire-server's client commands on an issuer.
type verbs struct {
	*testing.T
	issuer *harness.Issuer
	path   string
	tried  map[string]bool // the verbs run so far
}

// run runs a verb and expects each of the words in what it says, however far apart; it returns that.
func (v *verbs) run(command string, want ...string) string {
	v.Helper()
	out, err := v.try(command)
	if err != nil {
		v.Fatalf("%s: %v", command, err)
	}
	said := strings.Join(strings.Fields(out), " ")
	for _, words := range want {
		if !strings.Contains(said, words) {
			v.Errorf("%s: no %q in:\n%s", command, words, out)
		}
	}
	return out
}

// fails runs a verb and expects each of the words in its error.
func (v *verbs) fails(command string, want ...string) {
	v.Helper()
	_, err := v.try(command)
	if err == nil {
		v.Errorf("%s: no error", command)
		return
	}
	for _, words := range want {
		if !strings.Contains(err.Error(), words) {
			v.Errorf("%s: no %q in: %v", command, words, err)
		}
	}
}

func (v *verbs) try(command string) (string, error) {
	args := strings.Fields(command)
	n := 0
	for n < len(args) && !strings.HasPrefix(args[n], "-") {
		n++
	}
	v.tried[strings.Join(args[:n], " ")] = true
	return harness.Run(v.Context(), v.path, append(args, "-socketPath", v.issuer.Socket)...)
}

// find is the first group of a match in a verb's answer.
func (v *verbs) find(out, pattern string) string {
	v.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if match == nil {
		v.Fatalf("no %s in:\n%s", pattern, out)
	}
	return match[1]
}

// TestInteropEveryVerbOfSPIREServer runs each of the real spire-server's client commands on our issuer, and on SPIRE's own
// server, so that what is expected is what SPIRE's users know.
func TestInteropEveryVerbOfSPIREServer(t *testing.T) {
	t.Parallel()
	server := peer(t, "spire-server")
	t.Run("our issuer", func(t *testing.T) {
		t.Parallel()
		tryEveryVerb(t, server, harness.IssuerSpec{})
	})
	t.Run("spire-server", func(t *testing.T) {
		t.Parallel()
		tryEveryVerb(t, server, harness.IssuerSpec{SPIREServer: server})
	})
}

func tryEveryVerb(t *testing.T, server string, spec harness.IssuerSpec) {
	t.Helper()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, spec)
	foreign := harness.NewAuthority(t, s.Dir, "foreign.test")
	v := &verbs{T: t, issuer: issuer, path: server, tried: map[string]bool{}}
	v.run("healthcheck", "Server is healthy")
	v.entries()
	v.bundles(foreign)
	v.federation(foreign)
	v.agents()
	v.minting()
	v.authorities("x509", "X.509")
	v.authorities("jwt", "JWT")
	v.fails("upstreamauthority taint -subjectKeyID ab", "FailedPrecondition")
	v.fails("upstreamauthority revoke -subjectKeyID ab", "FailedPrecondition")
	v.run("logger get", "Logger Level : debug")
	v.run("logger set -level warn", "Logger Level : warning")
	v.run("logger reset", "Logger Level : debug")
	for _, verb := range everyVerb(t, server) {
		if !v.tried[verb] {
			t.Errorf("spire-server %s was not tried", verb)
		}
	}
}

// everyVerb are the commands that take a socket, as the real binary lists them.
func everyVerb(t *testing.T, server string) []string {
	t.Helper()
	var verbs []string
	for _, group := range []string{"agent", "bundle", "entry", "federation", "jwt", "localauthority jwt", "localauthority x509", "logger",
		"token", "upstreamauthority", "x509"} {
		_, err := harness.Run(t.Context(), server, strings.Fields(group)...)
		if err == nil {
			t.Fatalf("spire-server %s lists nothing", group)
		}
		_, list, ok := strings.Cut(err.Error(), "Subcommands:")
		if !ok {
			t.Fatalf("spire-server %s: %v", group, err)
		}
		for line := range strings.Lines(strings.TrimSpace(list)) {
			verbs = append(verbs, group+" "+strings.Fields(line)[0])
		}
	}
	return append(verbs, "healthcheck")
}

func (v *verbs) entries() {
	v.Helper()
	td := "spiffe://" + v.issuer.TrustDomain
	out := v.run("entry create -parentID "+td+"/node -spiffeID "+td+"/web -selector unix:uid:4711 -selector unix:gid:1 -x509SVIDTTL 60 "+
		"-jwtSVIDTTL 30 -dns web.test -hint h -entryExpiry 4000000000",
		"SPIFFE ID : "+td+"/web", "Parent ID : "+td+"/node", "Revision : 0", "X509-SVID TTL : 60", "JWT-SVID TTL : 30",
		"Expiration time : 2096-10-02", "Selector : unix:uid:4711", "DNS name : web.test", "Hint : h")
	id := v.find(out, `Entry ID +: (\S+)`)
	v.fails("entry create -parentID "+td+"/node -spiffeID "+td+"/web -selector unix:gid:1 -selector unix:uid:4711",
		"AlreadyExists", "similar entry already exists")
	v.run("entry show -entryID "+id, "Found 1 entry", "web.test")
	v.run("entry show -selector unix:uid:4711 -matchSelectorsOn superset", "Found 1 entry")
	v.run("entry show -spiffeID "+td+"/other", "Found 0 entries")
	v.run("entry show -output json -spiffeID "+td+"/web", `"x509_svid_ttl":60`, `"id":"`+id+`"`)
	v.run("entry count", "1 registration entry")
	v.run("entry count -hint other", "0 registration entries")
	v.run("entry update -entryID "+id+" -parentID "+td+"/node -spiffeID "+td+"/web -selector unix:uid:1 -downstream -admin",
		"Revision : 1", "Downstream : true", "Admin : true", "X509-SVID TTL : default")
	v.fails("entry update -entryID none -parentID "+td+"/node -spiffeID "+td+"/web -selector unix:uid:1", "NotFound")
	data := v.issuer.WriteFile("entries.json", `{"entries": [
		{"selectors": [{"type": "unix", "value": "uid:2"}], "spiffe_id": "`+td+`/a", "parent_id": "`+td+`/node", "x509_svid_ttl": 10},
		{"selectors": [{"type": "unix", "value": "uid:3"}], "spiffe_id": "`+td+`/b", "parent_id": "`+td+`/node"}]}`)
	out = v.run("entry create -data "+data, td+"/a", td+"/b")
	v.run("entry delete -entryID "+v.find(out, `Entry ID +: (\S+)`), "Deleted entry with ID")
	v.fails("entry delete -entryID none", "none")
	v.run("entry count", "2 registration entries")
}

func (v *verbs) bundles(foreign *harness.Authority) {
	v.Helper()
	v.run("bundle show", "-----BEGIN CERTIFICATE-----")
	v.run("bundle show -format spiffe", `"use": "x509-svid"`, `"use": "jwt-svid"`, `"spiffe_sequence"`)
	v.run("bundle set -id spiffe://foreign.test -path "+foreign.CA, "bundle set.")
	v.run("bundle set -id spiffe://foreign.test -format spiffe -path "+foreign.JWKS, "bundle set.")
	v.run("bundle list", "foreign.test", "-----BEGIN CERTIFICATE-----")
	v.run("bundle list -id spiffe://foreign.test -format spiffe", `"use": "x509-svid"`)
	v.run("bundle count", "2 bundles")
	td := "spiffe://" + v.issuer.TrustDomain
	out := v.run("entry create -parentID "+td+"/node -spiffeID "+td+"/fed -selector unix:uid:5 -federatesWith spiffe://foreign.test",
		"FederatesWith : foreign.test")
	v.fails("bundle delete -id spiffe://foreign.test", "failed to delete federated bundle")
	v.run("bundle delete -id spiffe://foreign.test -mode dissociate", "bundle deleted.")
	v.run("entry show -entryID "+v.find(out, `Entry ID +: (\S+)`), "Found 1 entry")
	v.fails("bundle list -id spiffe://foreign.test", "NotFound")
	v.fails("bundle delete -id spiffe://foreign.test", "bundle not found")
}

func (v *verbs) federation(foreign *harness.Authority) {
	v.Helper()
	v.run("federation create -trustDomain foreign.test -bundleEndpointURL https://foreign.test/bundle -bundleEndpointProfile https_spiffe "+
		"-endpointSpiffeID spiffe://foreign.test/spire/server -trustDomainBundlePath "+foreign.JWKS+" -trustDomainBundleFormat spiffe",
		"Trust domain : foreign.test", "Bundle endpoint profile : https_spiffe", "Endpoint SPIFFE ID : spiffe://foreign.test/spire/server")
	v.run("federation list", "Found 1 federation relationship", "https://foreign.test/bundle")
	v.run("federation show -trustDomain foreign.test", "Found a federation relationship with trust domain foreign.test")
	v.run("federation update -trustDomain foreign.test -bundleEndpointURL https://foreign.test/other -bundleEndpointProfile https_web",
		"https://foreign.test/other", "Bundle endpoint profile : https_web")
	v.fails("federation refresh -id foreign.test")
	v.fails("federation show -trustDomain none.test", "NotFound")
	v.run("federation delete -id foreign.test", "federation relationship deleted.")
	v.run("federation list", "Found 0 federation relationships")
}

func (v *verbs) minting() {
	v.Helper()
	td := "spiffe://" + v.issuer.TrustDomain
	dir := v.issuer.Path("minted", "x")
	v.run("x509 mint -spiffeID "+td+"/minted -dns minted.test -ttl 1m", "-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		v.Fatal(err)
	}
	v.run("x509 mint -spiffeID "+td+"/minted -write "+dir, "X509-SVID written to")
	if token := v.run("jwt mint -spiffeID " + td + "/minted -audience a -ttl 1m"); strings.Count(token, ".") != 2 {
		v.Errorf("jwt mint: %s", token)
	}
}

func (v *verbs) agents() {
	v.Helper()
	token := v.find(v.run("token generate -spiffeID spiffe://"+v.issuer.TrustDomain+"/node -ttl 60", "Token: "), `Token: (\S+)`)
	agent := harness.NewAgent(v.issuer, harness.AgentSpec{})
	agent.Start(token)
	out := v.run("agent list", "Found 1 attested agent", "Attestation type : join_token", "Can re-attest : false")
	id := v.find(out, `SPIFFE ID +: (\S+)`)
	v.run("agent count", "1 attested agent")
	v.run("agent count -attestationType x509pop", "0 attested agents")
	v.run("agent show -spiffeID "+id, "Found an attested agent given its SPIFFE ID", "Serial number")
	v.run("agent ban -spiffeID "+id, "Agent banned successfully")
	v.run("agent list -banned true", "Found 1 attested agent", "Banned : true")
	v.run("agent evict -spiffeID "+id, "Agent evicted successfully")
	v.run("agent purge -expiredFor 1h", "No agents to purge")
	v.fails("agent show -spiffeID "+id, "NotFound")
}

// authorities follows one authority from its making to its end.
func (v *verbs) authorities(kind, name string) {
	v.Helper()
	verb := "localauthority " + kind + " "
	first := v.find(v.run(verb+"show", "Active "+name+" authority:", "Prepared "+name+" authority:", "Old "+name+" authority:"), `Authority ID: (\S+)`)
	next := v.find(v.run(verb+"prepare", "Prepared "+name+" authority:"), `Authority ID: (\S+)`)
	v.run(verb+"activate -authorityID "+next, "Activated "+name+" authority:", next)
	v.fails(verb+"taint -authorityID "+next, "InvalidArgument")
	v.run(verb+"taint -authorityID "+first, "Tainted "+name+" authority:", first)
	v.run(verb+"revoke -authorityID "+first, "Revoked "+name+" authority:", first)
	v.run(verb+"show", next)
}
