package issuercmd

import (
	"errors"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/issuer"
	"github.com/lanyard-mtls/lanyard/issuer/enroll"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/k8spsat"
	"github.com/lanyard-mtls/lanyard/issuer/enroll/x509pop"
)

// method has the issuer make a method of node attestation when it runs.
func (ps *plugins) method(name string, newMethod issuer.NewMethod) {
	if ps.cfg.Methods == nil {
		ps.cfg.Methods = map[string]issuer.NewMethod{}
	}
	ps.cfg.Methods[name] = newMethod
}

func (ps *plugins) x509pop(p *spireconf.Plugin) {
	var data x509POP
	if !p.Decode(&data) {
		return
	}
	cfg := x509pop.Config{Mode: data.Mode, CABundlePaths: data.CABundlePaths, AgentPathTemplate: data.AgentPathTemplate, VerifyClientIP: data.VerifyClientIP}
	if data.CABundlePath != "" {
		if len(data.CABundlePaths) > 0 {
			p.Errorf("ca_bundle_path", "goes without ca_bundle_paths: name all files in that one")
		}
		cfg.CABundlePaths = append([]string{data.CABundlePath}, data.CABundlePaths...)
	}
	for _, limit := range []struct {
		key  string
		set  *int
		into *int
	}{{"max_intermediates", data.MaxIntermediates, &cfg.MaxIntermediates}, {"max_rsa_key_size", data.MaxRSAKeySize, &cfg.MaxRSABits}} {
		if limit.set == nil {
			continue
		}
		if *limit.into = *limit.set; *limit.set <= 0 {
			p.Errorf(limit.key, "%d: want 1 or more", *limit.set)
			*limit.into = 0
		}
	}
	if data.SPIFFEPrefix != nil {
		if cfg.SPIFFEPrefix = *data.SPIFFEPrefix; cfg.SPIFFEPrefix == "" {
			cfg.SPIFFEPrefix = "/" // as SPIRE has it
		}
	}
	trial := cfg
	trial.TrustDomain = ps.cfg.TrustDomain
	trial.Bundle = func() (*x509bundle.Bundle, error) { return nil, errors.New("not asked for") }
	_, err := x509pop.New(trial)
	p.Wrong(err)
	ps.method("x509pop", func(deps issuer.MethodDeps) (enroll.Method, error) {
		cfg.TrustDomain, cfg.Bundle = deps.TrustDomain, deps.Bundle
		return x509pop.New(cfg)
	})
}

func (ps *plugins) k8spsat(p *spireconf.Plugin) {
	var data k8sPSAT
	if !p.Decode(&data) {
		return
	}
	clusters := map[string]k8spsat.Cluster{}
	for _, c := range data.Clusters {
		if _, twice := clusters[c.Name]; twice {
			p.Errorf("clusters", "%q is given twice", c.Name)
		}
		one := k8spsat.Cluster{
			ServiceAccountAllowList: c.ServiceAccountAllowList, KubeConfigFile: c.KubeConfigFile,
			AllowedNodeLabelKeys: c.AllowedNodeLabelKeys, AllowedPodLabelKeys: c.AllowedPodLabelKeys, UsePodUIDForAgentID: c.UsePodUIDForAgentID,
		}
		if c.Audience != nil {
			one.Audience = append([]string{}, *c.Audience...) // an empty list means something else than none
		}
		clusters[c.Name] = one
	}
	trial, err := k8spsat.New(k8spsat.Config{TrustDomain: ps.cfg.TrustDomain, Clusters: clusters})
	p.Wrong(err)
	if err == nil {
		defer trial.Close()
		if err := trial.Check(); err != nil {
			ps.conf.Notef(p.At, "plugins.NodeAttestor %q: nobody can join by it as things are: %s", p.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	ps.method("k8s_psat", func(deps issuer.MethodDeps) (enroll.Method, error) {
		return k8spsat.New(k8spsat.Config{TrustDomain: deps.TrustDomain, Clusters: clusters, Log: deps.Log})
	})
}
