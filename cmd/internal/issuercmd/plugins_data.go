package issuercmd

import (
	"github.com/lanyard-mtls/lanyard/issuer/ca"
	"github.com/lanyard-mtls/lanyard/issuer/ca/upstream"
)

func (ps *plugins) noData(p plugin) { ps.data(&p, &struct{}{}) }

func (ps *plugins) keysOnDisk(p plugin) {
	var data keyManagerDisk
	if ps.data(&p, &data) {
		ps.cfg.KeyFile = data.KeysPath
	}
}

func (ps *plugins) keysInMemory(p plugin) {
	if ps.data(&p, &struct{}{}) {
		ps.cfg.MemoryKeys = true
	}
}

func (ps *plugins) uniqueID(p plugin) {
	if ps.data(&p, &struct{}{}) {
		ps.cfg.Composers = append(ps.cfg.Composers, ca.UniqueID())
	}
}

func (ps *plugins) upstreamDisk(p plugin) {
	var data upstreamDisk
	if !ps.data(&p, &data) {
		return
	}
	if data.CertFilePath == "" {
		ps.wrong(p, "cert_file_path", "is missing: name the PEM file of the authority's certificate")
	}
	if data.KeyFilePath == "" {
		ps.wrong(p, "key_file_path", "is missing: name the PEM file of the authority's private key")
	}
	ps.cfg.Parent = upstream.NewDisk(upstream.DiskConfig{
		CertFile: data.CertFilePath, KeyFile: data.KeyFilePath, BundleFile: data.BundleFilePath,
	})
}

func (ps *plugins) upstreamSPIRE(p plugin) {
	var data upstreamSPIRE
	if !ps.data(&p, &data) {
		return
	}
	if data.ServerAddress == "" {
		ps.wrong(p, "server_address", "is missing: name the parent's host")
	}
	if data.WorkloadAPISocket == "" {
		ps.wrong(p, "workload_api_socket", "is missing: name the socket of an agent of the parent's, from which this issuer gets the SVID it asks with")
	}
	if e := data.Experimental; e != nil && e.RequirePQKEM {
		ps.wrong(p, "experimental.require_pq_kem", "known to SPIRE, not supported yet; remove it")
	}
	cfg := upstream.SPIREConfig{ServerAddress: data.ServerAddress, ServerPort: defaultUpstreamPort, WorkloadAPISocket: data.WorkloadAPISocket, TrustDomain: ps.cfg.TrustDomain}
	if data.ServerPort != nil {
		cfg.ServerPort = *data.ServerPort
	}
	if cfg.ServerPort < 1 || cfg.ServerPort > 65535 {
		ps.wrong(p, "server_port", "%d: want 1 to 65535", cfg.ServerPort)
	}
	ps.cfg.Parent = upstream.NewSPIRE(cfg)
}
