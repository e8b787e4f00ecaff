package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Defaults where neither a file nor a flag says otherwise.
const (
	DefaultTrustDomain = "lanyard.test"
	DefaultBindAddress = "127.0.0.1"
	DefaultPort        = 8081
)

// SPIRE's own defaults, used only under its names.
const (
	spireServerSocket = "/tmp/spire-server/private/api.sock"
	spireAgentSocket  = "/tmp/spire-agent/public/api.sock"
)

// systemRun is where root's sockets are.
const systemRun = "/run/lanyard"

// Paths are the directories that defaults are below.
type Paths struct {
	State string // data of the roles
	Run   string // sockets
}

// DefaultPaths gives the directories of this user: for root /var/lib/lanyard and /run/lanyard, else $XDG_STATE_HOME/lanyard
// (~/.local/state/lanyard) and $XDG_RUNTIME_DIR/lanyard (run below the state). $LANYARD_STATE_DIR and $LANYARD_RUN_DIR go
// before all of these. Root's XDG variables don't count: they depend on how root logged in.
func (env *Env) DefaultPaths() (Paths, error) {
	p := Paths{State: env.Getenv("LANYARD_STATE_DIR"), Run: env.Getenv("LANYARD_RUN_DIR")}
	explicitState := p.State != ""
	if p.State == "" {
		state, err := env.userState()
		if err != nil {
			return Paths{}, err
		}
		p.State = state
	}
	if p.Run == "" {
		p.Run = env.userRun(p.State, explicitState)
	}
	for _, dir := range []*string{&p.State, &p.Run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return Paths{}, err
		}
		*dir = abs
	}
	return p, nil
}

func (env *Env) userState() (string, error) {
	if env.Root {
		return "/var/lib/lanyard", nil
	}
	if xdg := env.Getenv("XDG_STATE_HOME"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "lanyard"), nil
	}
	if home := env.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/state/lanyard"), nil
	}
	return "", fmt.Errorf("no place for the state: $HOME is not set; set it, $XDG_STATE_HOME or $LANYARD_STATE_DIR")
}

func (env *Env) userRun(state string, explicitState bool) string {
	switch xdg := env.Getenv("XDG_RUNTIME_DIR"); {
	case explicitState: // a second instance beside the first needs sockets of its own
		return filepath.Join(state, "run")
	case env.Root:
		return systemRun
	case filepath.IsAbs(xdg):
		return filepath.Join(xdg, "lanyard")
	default:
		return filepath.Join(state, "run")
	}
}

// IssuerState is the issuer's data directory.
func (p Paths) IssuerState() string { return filepath.Join(p.State, "issuer") }

// AgentState is the node agent's data directory.
func (p Paths) AgentState() string { return filepath.Join(p.State, "agent") }

// IssuerSocket is the issuer's admin socket.
func (p Paths) IssuerSocket() string { return filepath.Join(p.Run, "issuer", "api.sock") }

// AgentSocket is the socket of the Workload API and SDS.
func (p Paths) AgentSocket() string { return filepath.Join(p.Run, "agent", "public", "api.sock") }

// AgentAdminSocket is the node agent's admin socket.
func (p Paths) AgentAdminSocket() string { return filepath.Join(p.Run, "agent", "admin", "api.sock") }

// SDSSocket is the socket of an SDS server of its own.
func (p Paths) SDSSocket() string { return filepath.Join(p.Run, "sds", "api.sock") }

// IssuerSocket is where the issuer listens and its clients dial by default.
func (env *Env) IssuerSocket() string {
	if env.Dialect == SPIREServer {
		return spireServerSocket
	}
	p, err := env.DefaultPaths()
	if err != nil {
		return ""
	}
	return p.IssuerSocket()
}

// AgentSocket is where the node agent listens by default.
func (env *Env) AgentSocket() string {
	if env.Dialect == SPIREAgent {
		return spireAgentSocket
	}
	p, err := env.DefaultPaths()
	if err != nil {
		return ""
	}
	return p.AgentSocket()
}

// WorkloadSocket is where workloads find the Workload API by default: this user's agent's socket or, where there is none,
// root's. An own one that is there, or was asked for by $LANYARD_STATE_DIR or $LANYARD_RUN_DIR, is never passed over.
func (env *Env) WorkloadSocket() string {
	own := env.AgentSocket()
	if env.Dialect == SPIREAgent || env.Getenv("LANYARD_STATE_DIR") != "" || env.Getenv("LANYARD_RUN_DIR") != "" {
		return own
	}
	system := Paths{Run: systemRun}.AgentSocket()
	if _, err := os.Lstat(own); err != nil {
		if _, err := os.Lstat(system); err == nil {
			return system
		}
	}
	return own
}

// SocketFlags are SPIRE's flags that say which socket to dial.
type SocketFlags struct {
	Path, Instance string
}

// Resolve gives the path: the flag's; else $templateEnv with the instance filled in; else the path or unix: address in
// $pathEnv; else fallback.
func (s SocketFlags) Resolve(env *Env, templateEnv, pathEnv, fallback string) (string, error) {
	template := env.Getenv(templateEnv)
	if s.Instance != "" {
		if template == "" {
			return "", Usagef("-instance needs the environment variable %s, a socket path with %%i in it", templateEnv)
		}
		if !strings.Contains(template, "%i") {
			return "", Usagef("%s=%s has no %%i for -instance to fill in", templateEnv, template)
		}
	}
	switch fromEnv := env.Getenv(pathEnv); {
	case s.Path != "":
		return TrimUnix(s.Path), nil
	case s.Instance != "":
		return strings.ReplaceAll(template, "%i", s.Instance), nil
	case fromEnv != "":
		return TrimUnix(fromEnv), nil
	case fallback == "":
		_, err := env.DefaultPaths()
		return "", err
	}
	return fallback, nil
}

// TrimUnix gives the path in unix:///path, unix:path or path.
func TrimUnix(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "unix:"), "//")
}
