package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// TestBackupIsRestoredAndItsAgentsGoOn loses an issuer's directory and makes another of a backup, while an agent runs.
func TestBackupIsRestoredAndItsAgentsGoOn(t *testing.T) {
	t.Parallel()
	s := harness.NewStage(t, bin)
	issuer := harness.StartIssuer(s, harness.IssuerSpec{})
	agent := harness.NewAgent(issuer, harness.AgentSpec{})
	agent.Start(issuer.Token(issuer.ID("/node")))
	self := selfPath(t)
	issuer.Entry(issuer.ID("/node"), issuer.ID("/before"), self)
	fetchSVID(t, agent, issuer.ID("/before"))
	unspent := issuer.Token(issuer.ID("/other"))
	authority := issuer.ActiveAuthority("x509")

	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := s.WriteFile("issuer.key", "# the operator's\n"+id.String()+"\n")
	file := s.Path("issuer.age")
	issuer.Admin("backup", "-out", file, "-recipient", id.Recipient().String())
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "age-encryption.org/v1\n") {
		t.Fatalf("no age file: %v", err)
	}
	issuer.Entry(issuer.ID("/node"), issuer.ID("/lost"), self)

	dir := filepath.Dir(issuer.Conf)
	restore := func(args ...string) (string, error) {
		return harness.Run(t.Context(), bin+"/lanyard", append([]string{"issuer", "restore", "-in", file, "-config", issuer.Conf}, args...)...)
	}
	if _, err := restore("-identity", key); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Errorf("restored below a running issuer: %v", err)
	}
	if err := issuer.Process.Stop(fetchLimit); err != nil {
		t.Fatal(err)
	}
	if _, err := restore("-identity", key); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("restored over what is there: %v", err)
	}
	for _, name := range []string{"data", "keys.json"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := restore(); err == nil || !strings.Contains(err.Error(), "it is encrypted") {
		t.Errorf("restored without the key: %v", err)
	}
	out, err := restore("-identity", key)
	if err != nil || !strings.Contains(out, "Restored trust domain lanyard.test") {
		t.Fatalf("%v\n%s", err, out)
	}
	issuer.Start()

	if list := issuer.Admin("entry", "show"); !strings.Contains(list, "/before") || strings.Contains(list, "/lost") {
		t.Errorf("entries: %s", list)
	}
	issuer.Entry(issuer.ID("/node"), issuer.ID("/after"), self)
	fetchSVID(t, agent, issuer.ID("/after")) // the agent that joined before, and was away, needs no new token
	if ids := issuer.AgentIDs(); len(ids) != 1 {
		t.Errorf("agents: %v", ids)
	}
	if state := issuer.Admin("localauthority", "x509", "show"); !strings.Contains(state, authority) || strings.Count(state, "Authority ID:") < 2 {
		t.Errorf("no authority was made beside that of the backup, %s:\n%s", authority, state)
	}
	late := harness.NewAgent(issuer, harness.AgentSpec{})
	late.Launch(unspent)
	if _, err := late.Process.WaitFor(t.Context(), "is unknown to issuer"); err != nil {
		t.Errorf("a token of before the restore: %v", err)
	}
}
