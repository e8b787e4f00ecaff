package issuercli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// spireFlags are the verbs of spire-server with their flags, but for those that all have. A value after = is the default.
const spireFlags = `
agent ban: spiffeID
agent count: selector attestationType canReattest banned expiresBefore matchSelectorsOn=superset
agent evict: spiffeID
agent list: selector attestationType canReattest banned expiresBefore matchSelectorsOn=superset
agent purge: expiredFor=720h0m0s dryRun
agent show: spiffeID
bundle count:
bundle delete: id mode=restrict
bundle list: id format=pem
bundle set: id path format=pem
bundle show: format=pem
debug getinfo:
entry count: parentID spiffeID downstream selector federatesWith matchFederatesWithOn=superset matchSelectorsOn=superset hint
entry create: entryID parentID spiffeID x509SVIDTTL jwtSVIDTTL data selector federatesWith node admin storeSVID downstream entryExpiry dns hint disableX509SVIDPrefetch jwtSVIDIncludeJTI
entry delete: entryID file
entry show: entryID parentID spiffeID downstream selector federatesWith matchFederatesWithOn=superset matchSelectorsOn=superset hint
entry update: entryID parentID spiffeID x509SVIDTTL jwtSVIDTTL data selector federatesWith admin storeSVID downstream entryExpiry dns hint
federation create: trustDomain bundleEndpointURL bundleEndpointProfile endpointSpiffeID trustDomainBundlePath trustDomainBundleFormat=pem data
federation delete: id
federation list:
federation refresh: id
federation show: trustDomain
federation update: trustDomain bundleEndpointURL bundleEndpointProfile endpointSpiffeID trustDomainBundlePath trustDomainBundleFormat=pem data
healthcheck: shallow verbose
jwt mint: spiffeID ttl audience write
localauthority jwt activate: authorityID
localauthority jwt prepare:
localauthority jwt revoke: authorityID
localauthority jwt show:
localauthority jwt taint: authorityID
localauthority x509 activate: authorityID
localauthority x509 prepare:
localauthority x509 revoke: authorityID
localauthority x509 show:
localauthority x509 taint: authorityID
logger get:
logger reset:
logger set: level
token generate: ttl=600 spiffeID
upstreamauthority revoke: subjectKeyID
upstreamauthority taint: subjectKeyID
wit mint: spiffeID keyType=ec-p256 signingAlgorithm=ES256 ttl write
x509 mint: spiffeID ttl dns write
`

func TestEveryVerbAndFlagOfSpireServerIsThere(t *testing.T) {
	root := &cobra.Command{Use: "spire-server"}
	root.AddCommand(Verbs(testEnv())...)
	for line := range strings.Lines(strings.TrimSpace(spireFlags)) {
		verb, flags, _ := strings.Cut(strings.TrimSpace(line), ":")
		cmd, rest, err := root.Find(strings.Fields(verb))
		if err != nil || len(rest) > 0 || !cmd.Runnable() {
			t.Errorf("no verb %s: %v", verb, err)
			continue
		}
		common := " socketPath instance output=pretty"
		if verb == "healthcheck" {
			common = " socketPath instance"
		}
		for flag := range strings.FieldsSeq(flags + common) {
			name, def, hasDef := strings.Cut(flag, "=")
			f := cmd.Flags().Lookup(name)
			if f == nil {
				t.Errorf("%s has no -%s", verb, name)
				continue
			}
			if hasDef && f.DefValue != def {
				t.Errorf("%s -%s is %s by default, want %s", verb, name, f.DefValue, def)
			}
		}
	}
}

// TestEveryVerbTellsWhatItDoes holds the manners of help texts.
func TestEveryVerbTellsWhatItDoes(t *testing.T) {
	root := &cobra.Command{Use: "issuer"}
	root.AddCommand(Verbs(testEnv())...)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.HasParent() && (cmd.Short == "" || strings.HasSuffix(cmd.Short, ".")) {
			t.Errorf("%s: Short %q: want a sentence without its full stop", cmd.CommandPath(), cmd.Short)
		}
		for line := range strings.Lines(cmd.Long) {
			if len([]rune(line)) > 132 {
				t.Errorf("%s: a line of %d columns: %s", cmd.CommandPath(), len([]rune(line)), line)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

func testEnv() *cli.Env {
	var b bytes.Buffer
	return &cli.Env{Stdin: &b, Stdout: &b, Stderr: &b, Getenv: func(string) string { return "" }, Root: true}
}
