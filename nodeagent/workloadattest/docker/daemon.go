package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/unixsock"
)

const (
	// defaultPatience is how long a daemon has to answer.
	defaultPatience = 5 * time.Second
	// maxAnswer bounds an answer, in bytes: labels and environment of a container
	// are a few KiB, and the kernel takes 2 MiB of environment.
	maxAnswer = 4 << 20
)

// errUnknown says that a daemon has no such container.
var errUnknown = errors.New("no such container")

// inspected is what is read of GET /containers/{id}/json (Engine API).
type inspected struct {
	ID    string `json:"Id"`
	Name  string
	Image string // of the image that the container was made from
	State struct {
		Running bool
		Pid     int // in the daemon's PID namespace
	}
	Config struct {
		Image  string // as the container was started with
		Labels map[string]string
		Env    []string
	}
}

// daemon is a Docker or Podman that listens on a UNIX socket.
type daemon struct {
	name   string
	socket string
	prefix string // of paths: the API version
	client *http.Client
	// patience is how long it has to answer.
	patience time.Duration
}

func newDaemon(name, socket, version string) (*daemon, error) {
	// SPIRE's files write it as an address.
	socket = strings.TrimPrefix(socket, "unix://")
	if !strings.HasPrefix(socket, "/") {
		return nil, fmt.Errorf("%s socket %q: want the absolute path of a UNIX socket: what another machine's daemon says is of no use here", name, socket)
	}
	d := &daemon{name: name, socket: socket, patience: defaultPatience}
	if version != "" {
		version = strings.TrimPrefix(version, "v")
		if strings.Trim(version, "0123456789.") != "" {
			return nil, fmt.Errorf("docker_version %q: want an API version such as 1.41", version)
		}
		d.prefix = "/v" + version
	}
	d.client = &http.Client{
		Transport: &http.Transport{
			// A container is asked for once: nothing is kept open between.
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it redirects") },
	}
	return d, nil
}

// dial connects to the daemon if nobody else can be in its place: what it says
// gives identities away.
func (d *daemon) dial(ctx context.Context) (net.Conn, error) {
	if err := checkSocket(d.socket); err != nil {
		return nil, err
	}
	return unixsock.DialTrusted(ctx, d.socket)
}

// inspect returns what the daemon says of a container; errUnknown: it has none.
func (d *daemon) inspect(ctx context.Context, id string) (inspected, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.patience, fmt.Errorf("no answer within %s", d.patience))
	defer cancel()
	info, err := d.get(ctx, "/containers/"+id+"/json")
	switch {
	case errors.Is(err, errUnknown):
		return inspected{}, err
	case err == nil && info.ID != id:
		err = fmt.Errorf("asked for container %s, it answers with %.64q", id, info.ID)
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		return inspected{}, fmt.Errorf("%s on %s: %w", d.name, d.socket, err)
	}
	return info, nil
}

func (d *daemon) get(ctx context.Context, path string) (inspected, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.name+d.prefix+path, nil)
	if err != nil {
		return inspected{}, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return inspected{}, unwrap(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return inspected{}, err
	}
	if len(data) > maxAnswer {
		return inspected{}, fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	}
	return parse(resp.StatusCode, data)
}

// parse reads an answer.
func parse(status int, data []byte) (inspected, error) {
	if status != http.StatusOK {
		var said struct{ Message string }
		_ = json.Unmarshal(data, &said) // what it says beside the status, if it does
		// A path that the API does not have is 404 as well.
		if status == http.StatusNotFound && strings.Contains(strings.ToLower(said.Message), "no such container") {
			return inspected{}, errUnknown
		}
		return inspected{}, fmt.Errorf("it answers %d %s: %.200q", status, http.StatusText(status), said.Message)
	}
	var info inspected
	if err := json.Unmarshal(data, &info); err != nil {
		return inspected{}, fmt.Errorf("its answer is no description of a container: %w", err)
	}
	return info, nil
}

// unwrap drops the method and URL, which say nothing here.
func unwrap(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || !strings.HasPrefix(err.Error(), "Get ") {
			return err
		}
		err = inner
	}
}
