package issuercmd

import (
	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/ca/upstream"
)

func noData(p *spireconf.Plugin) { p.Decode(&struct{}{}) }

func (ps *plugins) keysOnDisk(p *spireconf.Plugin) {
	var data keyManagerDisk
	if p.Decode(&data) {
		ps.cfg.KeyFile = data.KeysPath
	}
}

func (ps *plugins) keysInMemory(p *spireconf.Plugin) {
	if p.Decode(&struct{}{}) {
		ps.cfg.MemoryKeys = true
	}
}

func (ps *plugins) uniqueID(p *spireconf.Plugin) {
	if p.Decode(&struct{}{}) {
		ps.cfg.Composers = append(ps.cfg.Composers, ca.UniqueID())
	}
}

func (ps *plugins) upstreamDisk(p *spireconf.Plugin) {
	var data upstreamDisk
	if !p.Decode(&data) {
		return
	}
	if data.CertFilePath == "" {
		p.Errorf("cert_file_path", "is missing: name the PEM file of the authority's certificate")
	}
	if data.KeyFilePath == "" {
		p.Errorf("key_file_path", "is missing: name the PEM file of the authority's private key")
	}
	ps.cfg.Parent = upstream.NewDisk(upstream.DiskConfig{
		CertFile: data.CertFilePath, KeyFile: data.KeyFilePath, BundleFile: data.BundleFilePath,
	})
}

func (ps *plugins) upstreamSPIRE(p *spireconf.Plugin) {
	var data upstreamSPIRE
	if !p.Decode(&data) {
		return
	}
	if data.ServerAddress == "" {
		p.Errorf("server_address", "is missing: name the parent's host")
	}
	if data.WorkloadAPISocket == "" {
		p.Errorf("workload_api_socket", "is missing: name the socket of an agent of the parent's, from which this issuer gets the SVID it asks with")
	}
	if e := data.Experimental; e != nil && e.RequirePQKEM {
		p.Errorf("experimental.require_pq_kem", "known to SPIRE, not supported yet; remove it")
	}
	cfg := upstream.SPIREConfig{ServerAddress: data.ServerAddress, ServerPort: defaultUpstreamPort, WorkloadAPISocket: data.WorkloadAPISocket, TrustDomain: ps.cfg.TrustDomain}
	if data.ServerPort != nil {
		cfg.ServerPort = *data.ServerPort
	}
	if cfg.ServerPort < 1 || cfg.ServerPort > 65535 {
		p.Errorf("server_port", "%d: want 1 to 65535", cfg.ServerPort)
	}
	ps.cfg.Parent = upstream.NewSPIRE(cfg)
}
