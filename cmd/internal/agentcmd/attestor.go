package agentcmd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/nodeattest"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/attest"
)

// chosenAttestor is what the file says of how the agent joins.
type chosenAttestor struct {
	name    string // "" is join_token
	x509pop attest.X509POP
	psat    attest.K8sPSAT
	joinKey joinKeyData
	// tokenFault tells what is wrong with join_key's token_file.
	tokenFault func(error)
}

func (ps *plugins) joinToken(p *spireconf.Plugin) {
	p.Decode(&struct{}{})
	ps.node.name = p.Name
}

func (ps *plugins) joinKey(p *spireconf.Plugin) {
	p.Decode(&ps.node.joinKey)
	ps.node.name = p.Name
	ps.node.tokenFault = func(err error) { p.Errorf("token_file", "%v", err) }
}

func (ps *plugins) x509pop(p *spireconf.Plugin) {
	var data x509popData
	ps.node.name = p.Name
	if !p.Decode(&data) {
		return
	}
	if data.SPIFFEEndpointSocket == "" {
		if data.PrivateKeyPath == "" {
			p.Errorf("private_key_path", "is missing: name the PEM file of the node's private key")
		}
		if data.CertificatePath == "" {
			p.Errorf("certificate_path", "is missing: name the PEM file of the node's certificate")
		}
	} else if !strings.Contains(data.SPIFFEEndpointSocket, ":") {
		data.SPIFFEEndpointSocket = "unix://" + data.SPIFFEEndpointSocket
	}
	ps.node.x509pop = attest.X509POP{
		PrivateKeyPath: data.PrivateKeyPath, CertificatePath: data.CertificatePath, IntermediatesPath: data.IntermediatesPath,
		EndpointSocket: data.SPIFFEEndpointSocket,
	}
}

func (ps *plugins) k8sPSAT(p *spireconf.Plugin) {
	var data k8sPSATData
	ps.node.name = p.Name
	if !p.Decode(&data) {
		return
	}
	if data.Cluster == "" {
		p.Errorf("cluster", "is missing: the name that the issuer knows this cluster by")
	}
	ps.node.psat = attest.K8sPSAT{Cluster: data.Cluster, TokenPath: cmp.Or(data.TokenPath, attest.DefaultTokenPath)}
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
		if err := checkToken(c.joinKey.TokenFile, c.name, dataDir); err != nil {
			c.tokenFault(err)
		}
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
