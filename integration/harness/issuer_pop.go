package harness

// X509POP is the NodeAttestor "x509pop" as an issuer's plugins have it, which takes the authority's certificates, and as an
// agent's have it, with a certificate for the name.
func X509POP(ca *Authority, name string) (issuer, agent string) {
	files := ca.Issue(CertSpec{Name: name, CN: name})
	issuer = conf(`  NodeAttestor "x509pop" {
    plugin_data {
      ca_bundle_path = «ca»
    }
  }`, "ca", ca.CA)
	agent = conf(`NodeAttestor "x509pop" {
    plugin_data {
      private_key_path = «key»
      certificate_path = «cert»
    }
  }`, "key", files.Key, "cert", files.Cert)
	return issuer, agent
}
