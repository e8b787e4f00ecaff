package issuer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer"
)

func TestValidateReportsAllAtOnce(t *testing.T) {
	err := issuer.Config{
		BindAddress:        "localhost",
		BindPort:           65536,
		CATTL:              time.Second,
		DefaultX509SVIDTTL: -1,
		AgentTTL:           time.Millisecond,
		AdminIDs:           []spiffeid.ID{{}},
	}.Validate()
	want := `trust_domain is missing: name one, such as example.org
data_dir is missing: name a directory for this issuer's keys and records
bind_address "localhost" is not an IP address, such as 0.0.0.0
bind_port 65536: want 1 to 65535, or 0 for any that is free
socket_path is missing: name the admin socket
ca_ttl 1s: want 10s or more
default_x509_svid_ttl -1ns: want 2s or more
agent_ttl 1ms: want 2s or more
admin_ids has an empty SPIFFE ID`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestValidateTakesTheLeast(t *testing.T) {
	cfg := issuer.Config{TrustDomain: td, DataDir: "data", SocketPath: "api.sock"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
