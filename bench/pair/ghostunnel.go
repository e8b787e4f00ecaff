package pair

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// The Go programs offer X25519MLKEM768 first unless told otherwise; X25519 is next, and AES-128-GCM is theirs where the processor
// has it.
const onlyX25519 = "GODEBUG=tlsmlkem=0,tlssecpmlkem=0"

// Ghostunnel is the one in $LANYARD_PEERS. It never resumes a session, as its client keeps none.
func Ghostunnel() (*Peer, error) {
	path := harness.Peer("ghostunnel")
	if path == "" {
		return nil, fmt.Errorf("no ghostunnel in $LANYARD_PEERS")
	}
	version, err := output(path, "--version")
	if err != nil {
		return nil, err
	}
	return &Peer{
		Name: "ghostunnel", Version: strings.TrimPrefix(version, "rev "),
		command: func(s Side) (*exec.Cmd, error) { return ghostunnelCommand(path, s), nil },
	}, nil
}

// Lanyard is a Lanyard sidecar, by ghostunnel's flags.
func Lanyard(name, path string) (*Peer, error) {
	version, err := output(path, "--version")
	if err != nil {
		return nil, err
	}
	return &Peer{Name: name, Version: version, command: func(s Side) (*exec.Cmd, error) {
		cmd := ghostunnelCommand(path, s)
		if s.Full {
			cmd.Args = append(cmd.Args, "--no-resumption")
		}
		return cmd, nil
	}}, nil
}

func ghostunnelCommand(path string, s Side) *exec.Cmd {
	mode, rule := "client", "--verify-uri"
	if s.Server {
		mode, rule = "server", "--allow-uri"
	}
	cmd := exec.Command(path, mode, "--listen", s.Listen, "--target", s.Target, "--quiet=all",
		"--cert", s.Cert.Cert, "--key", s.Cert.Key, "--cacert", s.Cert.CA, rule, s.PeerID)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2") // as many workers as the others have
	if !s.Defaults {
		cmd.Env = append(cmd.Env, onlyX25519)
	}
	return cmd
}

// output is what a program prints when asked for its version, on one line.
func output(path string, args ...string) (string, error) {
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", path, strings.Join(args, " "), err)
	}
	return strings.Join(strings.Fields(string(out)), " "), nil
}

// version finds in what a program prints its version.
func version(pattern, path string, args ...string) (string, error) {
	text, err := output(path, args...)
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		return "", fmt.Errorf("%s: no version in %.80q", path, text)
	}
	return match[1], nil
}
