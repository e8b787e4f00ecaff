package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// envoyPair is a web server behind an Envoy, and another Envoy in front of it.
type envoyPair struct {
	server, client *harness.Envoy
}

// newEnvoyPair starts both; how says the protocol and whose configuration, socket gives each its SDS socket.
func newEnvoyPair(t *testing.T, d *harness.Domain, how harness.EnvoySpec, socket func(workload, spiffeID, envoy string) string) envoyPair {
	t.Helper()
	webID, userID := d.ID("/web"), d.ID("/user")
	spec := func(name, id, peerID, target string, server bool) harness.EnvoySpec {
		binary := d.Copy(envoyBinary(t), name)
		return harness.EnvoySpec{
			Name: name, Binary: binary, Server: server, Target: target, SDSSocket: socket(name, id, binary),
			Certificate: "default", Bundle: "ROOTCA", PeerID: peerID, Delta: how.Delta, Printed: how.Printed,
		}
	}
	var pair envoyPair
	pair.server = d.Envoy(spec("web-envoy", webID, userID, d.WebServer(greeting), true))
	pair.client = d.Envoy(spec("user-envoy", userID, webID, pair.server.Listen, false))
	return pair
}

// check serves a request and looks at the identities the two Envoys hold.
func (pair envoyPair) check(t *testing.T, d *harness.Domain) {
	t.Helper()
	got, err := curl(t.Context(), pair.client.Listen)
	if err != nil || got != greeting {
		t.Fatalf("got %q, %v, want %q", got, err, greeting)
	}
	for envoy, want := range map[*harness.Envoy]string{pair.server: d.ID("/web"), pair.client: d.ID("/user")} {
		if got := envoyIDs(t, envoy); !slices.Equal(got, []string{want}) {
			t.Errorf("%s holds SVIDs of %v, want %s alone", envoy.Name, got, want)
		}
	}
}

// envoyIDs are the URI SANs of the certificates an Envoy holds.
func envoyIDs(t *testing.T, envoy *harness.Envoy) []string {
	t.Helper()
	text, err := harness.Get(t.Context(), harness.NewConns(), "http://"+envoy.Admin+"/certs")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Certificates []struct {
			CertChain []struct {
				SANs []struct{ URI string } `json:"subject_alt_names"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var ids []string
	for _, certificate := range answer.Certificates {
		for _, leaf := range certificate.CertChain {
			for _, san := range leaf.SANs {
				ids = append(ids, san.URI)
			}
		}
	}
	return slices.Compact(ids)
}

// hows are the ways an Envoy takes secrets: both protocols, on a configuration written by hand and on the printed one.
func hows() []harness.EnvoySpec {
	return []harness.EnvoySpec{{}, {Delta: true}, {Printed: true}, {Delta: true, Printed: true}}
}

func TestEnvoyOverTheAgentsSocket(t *testing.T) {
	t.Parallel()
	for _, how := range hows() {
		t.Run(fmt.Sprintf("delta=%v,printed=%v", how.Delta, how.Printed), func(t *testing.T) {
			envoyBinary(t)
			d := harness.NewDomain(t, bin, harness.Options{})
			d.Start()
			pair := newEnvoyPair(t, d, how, func(_, spiffeID, envoy string) string {
				d.Entry(spiffeID, envoy, 0) // the agent attests the Envoy itself
				return d.AgentSocket
			})
			pair.check(t, d)
		})
	}
}

func TestEnvoyRefusesAnotherIdentity(t *testing.T) {
	t.Parallel()
	envoyBinary(t)
	d := harness.NewDomain(t, bin, harness.Options{})
	d.Start()
	pair := newEnvoyPair(t, d, harness.EnvoySpec{Printed: true}, func(_, spiffeID, envoy string) string {
		d.Entry(spiffeID, envoy, 0)
		return d.AgentSocket
	})
	intruder := d.Copy(d.SidecarBinary(), "intruder")
	d.Entry(d.ID("/intruder"), intruder, 0)
	side := d.Sidecar(harness.SidecarSpec{
		Name: "intruder sidecar", Binary: intruder, Mode: "client", Target: pair.server.Listen, WorkloadAPI: d.WorkloadAPI(),
	})
	if got, err := curl(t.Context(), side.Listen); err == nil {
		t.Fatalf("the intruder was served: %q", got)
	}
	pair.check(t, d)
}

// bridge gives each Envoy a `lanyard sds` of its own, which is the workload.
func bridge(d *harness.Domain, workloadAPI string) func(workload, spiffeID, envoy string) string {
	return func(workload, spiffeID, _ string) string {
		binary := d.Copy(d.Bin+"/lanyard-sds", workload+"-sds")
		d.Entry(spiffeID, binary, 0)
		return d.SDS(workload+"-sds", binary, workloadAPI)
	}
}

func TestEnvoyOverLanyardSDS(t *testing.T) {
	t.Parallel()
	for _, how := range hows()[2:] {
		t.Run(fmt.Sprintf("delta=%v", how.Delta), func(t *testing.T) {
			envoyBinary(t)
			d := harness.NewDomain(t, bin, harness.Options{})
			d.Start()
			newEnvoyPair(t, d, how, bridge(d, d.WorkloadAPI())).check(t, d)
		})
	}
}
