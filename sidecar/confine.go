package sidecar

import (
	"strings"

	"github.com/lanyard-mtls/lanyard/sidecar/identity"
	"github.com/lanyard-mtls/lanyard/sidecar/sandbox"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// confine gives up all that the configuration has no use for.
func (s *Sidecar) confine() error {
	if !s.cfg.Sandbox.Enabled {
		return nil
	}
	if s.cfg.usesPKCS11() {
		s.log.Info("no sandbox: a PKCS#11 module may need anything")
		return nil
	}
	rules := s.cfg.sandboxRules()
	s.confined = &rules
	return sandbox.Apply(rules, s.log)
}

// beyondSandbox returns an error if the sandbox would not let cfg work.
func (s *Sidecar) beyondSandbox(cfg Config) error {
	if s.confined == nil {
		return nil
	}
	if cfg.usesPKCS11() {
		return setting.Errorf("pkcs11_module", "", "may need anything, and the sandbox was shut at the start: restart")
	}
	missing := s.confined.Missing(cfg.sandboxRules())
	if len(missing) == 0 {
		return nil
	}
	return setting.Errorf("sandbox", "", "was shut at the start and refuses to %s: restart", strings.Join(missing, ", "))
}

func (c Config) usesPKCS11() bool {
	for _, t := range c.Tunnels {
		if t.Identity.PKCS11 != (identity.PKCS11{}) {
			return true
		}
	}
	return false
}

// sandboxRules are what c needs.
func (c Config) sandboxRules() sandbox.Rules {
	r := sandbox.Rules{ReadFiles: c.Sandbox.ReadFiles, WriteDirs: c.Sandbox.WriteDirs, Dumpable: c.Status.PProf, AnyConnect: c.Sandbox.Reloads}
	r.Bind = append(r.Bind, c.Status.Listen)
	if c.Sandbox.Reloads {
		r.Bind = append(r.Bind, "127.0.0.1:0") // what a new configuration will listen on is not known
	}
	r.Connect = append(r.Connect, c.Metrics.Graphite, c.Metrics.URL)
	for _, t := range c.Tunnels {
		r.Bind = append(r.Bind, t.Listen)
		r.Connect = append(r.Connect, t.Target, t.Via, t.TargetStatus)
		id := t.Identity
		if path, ok := strings.CutPrefix(id.WorkloadAPI, "unix:"); ok {
			r.Sockets = append(r.Sockets, "/"+strings.TrimLeft(path, "/"))
		} else {
			r.Connect = append(r.Connect, strings.TrimPrefix(id.WorkloadAPI, "tcp://"))
		}
		r.ReadFiles = append(r.ReadFiles, id.Keystore, id.Cert, id.Key, id.CACert, t.Policy.Rego.Path)
		for _, file := range id.TrustBundles {
			r.ReadFiles = append(r.ReadFiles, file)
		}
		if id.ACME != (identity.ACME{}) {
			r.AnyConnect = true // its authority, and where that redirects
			r.WriteDirs = append(r.WriteDirs, id.ACME.Storage)
		}
	}
	return r
}
