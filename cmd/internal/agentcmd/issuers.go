package agentcmd

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/nodeagent"
)

// issuers are where the issuer is: one address, or several of a cluster.
type issuers struct {
	host    string
	port    int
	several []string
}

// issuers is what the file says. Its conflicts are faults of the file.
func (b *agentBlock) issuers(conf *hclconf.File) issuers {
	to := issuers{host: b.ServerAddress, port: cli.DefaultPort}
	if b.ServerPort != nil {
		to.port = *b.ServerPort
	}
	for i, address := range b.ServerAddresses {
		host, port, err := net.SplitHostPort(address)
		n, portErr := strconv.Atoi(port)
		if err != nil || host == "" || portErr != nil || n < 1 || n > 65535 {
			conf.Errorf(conf.At("agent.server_addresses"), "agent.server_addresses: item %d: %q: want HOST:PORT, such as \"issuer-1.example.org:8081\"", i+1, address)
			continue
		}
		to.several = append(to.several, address)
	}
	if len(b.ServerAddresses) > 0 {
		for _, key := range []string{"agent.server_address", "agent.server_port"} {
			if conf.Has(key) {
				conf.Errorf(conf.At(key), "%s and agent.server_addresses are both set: name all issuers in the latter", key)
			}
		}
	}
	return to
}

func (to issuers) into(c *nodeagent.Config) {
	if len(to.several) > 0 {
		c.ServerAddresses = to.several
		return
	}
	c.ServerAddress = net.JoinHostPort(strings.Trim(to.host, "[]"), strconv.Itoa(to.port))
}

func (to issuers) check(conf *hclconf.File) {
	if len(to.several) > 0 {
		return
	}
	if to.host == "" {
		conf.Errorf(conf.At("agent"), "agent.server_address is missing: the issuer's host name or IP address")
	}
	conf.Check("agent.server_port", to.checkPort())
}

func (to issuers) checkPort() error {
	if to.port < 1 || to.port > 65535 {
		return fmt.Errorf("port %d of the issuer: want 1 to 65535", to.port)
	}
	return nil
}
