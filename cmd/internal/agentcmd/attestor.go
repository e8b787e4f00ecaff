package agentcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// x509popData, k8sPSATData and joinKeyData are the configurations of node attestors: SPIRE's, and the last our own.
type x509popData struct {
	PrivateKeyPath       string `hcl:"private_key_path,optional"`
	CertificatePath      string `hcl:"certificate_path,optional"`
	IntermediatesPath    string `hcl:"intermediates_path,optional"`
	SPIFFEEndpointSocket string `hcl:"spiffe_endpoint_socket,optional"`
}

type k8sPSATData struct {
	Cluster   string `hcl:"cluster,optional"`
	TokenPath string `hcl:"token_path,optional"`
}

type joinKeyData struct {
	TokenFile string `hcl:"token_file,optional"`
}

// chosenAttestor is what the file says of how the agent joins.
type chosenAttestor struct {
	name    string // "" is join_token
	x509pop attest.X509POP
	psat    attest.K8sPSAT
	joinKey joinKeyData
}

// nodeAttestor reads the one NodeAttestor block there may be.
func (p *pluginsBlock) nodeAttestor(f *hclconf.File) (c chosenAttestor) {
	for i, b := range p.NodeAttestor {
		if i > 0 {
			f.Errorf(b.At, "plugins.NodeAttestor %q: there is one already, %q: keep one", b.Name, c.name)
			continue
		}
		c.name = b.Name
		switch b.Name {
		case nodeattest.JoinToken:
			f.DecodeBody(b.Data, &struct{}{})
		case nodeattest.JoinKey:
			f.DecodeBody(b.Data, &c.joinKey)
		case nodeattest.X509POP:
			c.x509pop = b.x509pop(f)
		case nodeattest.K8sPSAT:
			var data k8sPSATData
			f.DecodeBody(b.Data, &data)
			if data.Cluster == "" {
				f.Errorf(b.At, "plugins.NodeAttestor %q: cluster is missing: the name that the issuer knows this cluster by", b.Name)
			}
			if data.TokenPath == "" {
				data.TokenPath = attest.DefaultTokenPath
			}
			c.psat = attest.K8sPSAT(data)
		default:
			f.Errorf(b.At, "plugins.NodeAttestor %q: known to SPIRE, not supported yet; write join_token, join_key, x509pop or k8s_psat", b.Name)
		}
	}
	return c
}

func (b pluginBlock) x509pop(f *hclconf.File) attest.X509POP {
	var data x509popData
	f.DecodeBody(b.Data, &data)
	if data.SPIFFEEndpointSocket == "" {
		if data.PrivateKeyPath == "" {
			f.Errorf(b.At, "plugins.NodeAttestor %q: private_key_path is missing", b.Name)
		}
		if data.CertificatePath == "" {
			f.Errorf(b.At, "plugins.NodeAttestor %q: certificate_path is missing", b.Name)
		}
	} else if !strings.Contains(data.SPIFFEEndpointSocket, ":") {
		data.SPIFFEEndpointSocket = "unix://" + data.SPIFFEEndpointSocket
	}
	return attest.X509POP{
		PrivateKeyPath: data.PrivateKeyPath, CertificatePath: data.CertificatePath, IntermediatesPath: data.IntermediatesPath,
		EndpointSocket: data.SPIFFEEndpointSocket,
	}
}

// attestor returns what the agent joins with. A join token goes before x509pop and k8s_psat, as in SPIRE.
func (f *flags) attestor(env *cli.Env, conf *hclconf.File, b *agentBlock, c chosenAttestor, dataDir string) (upstream.Attestor, error) {
	if f.nodeAttestor != "" {
		c.name = f.nodeAttestor
	}
	token, err := f.token(env, conf, b, c, dataDir)
	if err != nil {
		return nil, err
	}
	given := token != (attest.Token{})
	switch {
	case c.name == nodeattest.JoinKey:
		return &attest.JoinKey{Dir: dataDir, Token: token}, nil
	case c.name == nodeattest.X509POP && !given:
		return c.x509pop, nil
	case c.name == nodeattest.K8sPSAT && !given:
		return c.psat, nil
	}
	return attest.JoinToken{Token: token}, nil
}

// token finds the join token: flags go before the file. What the file gives that cannot be used is an error at its line.
func (f *flags) token(env *cli.Env, conf *hclconf.File, b *agentBlock, c chosenAttestor, dataDir string) (attest.Token, error) {
	switch {
	case f.joinToken != "" && f.joinTokenFile != "":
		return attest.Token{}, cli.Usagef("-joinToken and -joinTokenFile can't be combined: keep one")
	case f.joinToken != "":
		return attest.Token{Value: f.joinToken}, nodeattest.CheckJoinToken(f.joinToken)
	case f.joinTokenFile == "-":
		token, err := attest.ReadToken(env.Stdin)
		if err == nil {
			err = nodeattest.CheckJoinToken(token)
		}
		if err != nil {
			return attest.Token{}, fmt.Errorf("-joinTokenFile -: standard input: %w", err)
		}
		return attest.Token{Value: token}, nil
	case f.joinTokenFile != "":
		if err := checkToken(f.joinTokenFile, c.name, dataDir); err != nil {
			return attest.Token{}, fmt.Errorf("-joinTokenFile %w", err)
		}
		return attest.Token{File: f.joinTokenFile}, nil
	case b.JoinToken != "" && b.JoinTokenFile != "":
		conf.Errorf(conf.At("agent.join_token_file"), "agent.join_token and agent.join_token_file are both set: keep one")
	case b.JoinToken != "":
		conf.Check("agent.join_token", nodeattest.CheckJoinToken(b.JoinToken))
		return attest.Token{Value: b.JoinToken}, nil
	case b.JoinTokenFile != "":
		conf.Check("agent.join_token_file", checkToken(b.JoinTokenFile, c.name, dataDir))
		return attest.Token{File: b.JoinTokenFile}, nil
	case c.joinKey.TokenFile != "":
		conf.Check("plugins.NodeAttestor.join_key.plugin_data.token_file", checkToken(c.joinKey.TokenFile, c.name, dataDir))
		return attest.Token{File: c.joinKey.TokenFile}, nil
	}
	return attest.Token{}, nil
}

// checkToken reports why the file has no join token; the error never shows what is in it. It may be gone once the agent
// has joined.
func checkToken(path, method, dataDir string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && joinedBefore(method, dataDir) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	defer f.Close()
	token, err := attest.ReadToken(f)
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	if err := nodeattest.CheckJoinToken(token); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func joinedBefore(method, dataDir string) bool {
	name := upstream.DataFile
	if method == nodeattest.JoinKey {
		name = attest.KeyFile
	}
	_, err := os.Lstat(filepath.Join(dataDir, name))
	return err == nil
}
