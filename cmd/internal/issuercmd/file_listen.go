package issuercmd

// oidcBlock is Lanyard's own: what oidc-discovery-provider is beside SPIRE. Its keys are that program's, where it has them.
type oidcBlock struct {
	Domains             []string `hcl:"domains,optional"`
	JWTIssuer           string   `hcl:"jwt_issuer,optional"`
	JWKSURI             string   `hcl:"jwks_uri,optional"`
	ServerPathPrefix    string   `hcl:"server_path_prefix,optional"`
	SetKeyUse           bool     `hcl:"set_key_use,optional"`
	Listen              string   `hcl:"listen,optional"`
	CertFilePath        string   `hcl:"cert_file_path,optional"`
	KeyFilePath         string   `hcl:"key_file_path,optional"`
	Plaintext           bool     `hcl:"plaintext,optional"`
	AllowInsecureScheme bool     `hcl:"allow_insecure_scheme,optional"`
	LogRequests         bool     `hcl:"log_requests,optional"`
}
