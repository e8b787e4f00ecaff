package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
	"github.com/lanyard-mtls/lanyard/integration/kube"
)

// The sample is what a real API server takes, and the configuration in it what an agent does.
func TestKubernetesSample(t *testing.T) {
	t.Parallel()
	binary := kube.Binary("..")
	if binary == "" {
		t.Skip(kube.Skipped)
	}
	c := kube.Start(t, binary)
	c.Apply(filepath.Join("..", "configs", "kubernetes", "lanyard-agent.yaml"))
	s := harness.NewStage(t, bin)
	text := strings.Replace(c.ConfigMap("lanyard", "lanyard-agent", "agent.hcl"), "/run/lanyard/bundle/bundle.pem", c.CAFile, 1) // some certificate
	config := s.WriteFile("agent.hcl", text)
	s.Run(filepath.Join(bin, "lanyard"), "agent", "validate", "-config", config)
}
