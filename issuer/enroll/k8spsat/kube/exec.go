package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// execConfig is a credential plugin: a program that prints who the caller is (client.authentication.k8s.io).
type execConfig struct {
	APIVersion         string
	Command            string
	Args               []string
	Env                []struct{ Name, Value string }
	InstallHint        string
	InteractiveMode    string
	ProvideClusterInfo bool
}

// check reports what is wrong with the plugin, and makes its path whole: one with a slash is relative to the file.
func (e *execConfig) check(in folder) error {
	switch {
	case e.Command == "":
		return errors.New("exec: command is missing")
	case e.APIVersion != "client.authentication.k8s.io/v1" && e.APIVersion != "client.authentication.k8s.io/v1beta1":
		return fmt.Errorf("exec: apiVersion %q, want client.authentication.k8s.io/v1", e.APIVersion)
	case e.InteractiveMode == "Always":
		return fmt.Errorf("exec: %s must ask someone (interactiveMode: Always), and there is nobody", e.Command)
	case e.ProvideClusterInfo:
		return errors.New("exec: provideClusterInfo is not supported")
	}
	if filepath.Base(e.Command) != e.Command {
		e.Command = in.path(e.Command)
	}
	return nil
}

// plugin keeps what a credential plugin printed, as long as it may be used.
type plugin struct {
	mu    sync.Mutex // held while the plugin runs: one run is for all who wait
	of    string     // the plugin that made it
	creds execStatus
	until time.Time // zero: until it is refused
	held  bool
}

type execStatus struct {
	ExpirationTimestamp time.Time
	Token               string
	Cert                string `json:"clientCertificateData"`
	Key                 string `json:"clientKeyData"`
}

// forget drops what is kept, because it was refused, and reports whether there was something.
func (p *plugin) forget() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held
	p.held, p.creds = false, execStatus{}
	return held
}

// fill adds the plugin's credentials to a, running it if those kept are too old.
func (p *plugin) fill(ctx context.Context, a *access) error {
	of, err := json.Marshal(a.exec)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if fresh := p.until.IsZero() || time.Now().Before(p.until); !p.held || !fresh || p.of != string(of) {
		creds, err := a.exec.run(ctx)
		if err != nil {
			return err
		}
		p.of, p.creds, p.until, p.held = string(of), creds, creds.ExpirationTimestamp, true
	}
	if p.creds.Token != "" {
		a.token = p.creds.Token
	}
	if p.creds.Cert != "" {
		a.cert, a.key = p.creds.Cert, p.creds.Key
	}
	return nil
}

// maxCredential bounds what a plugin prints, in bytes.
const maxCredential = 256 << 10

// run runs the plugin. Nothing that it prints is repeated, but the last line of its complaints.
func (e *execConfig) run(ctx context.Context) (execStatus, error) {
	const kind = "ExecCredential"
	info, err := json.Marshal(map[string]any{"apiVersion": e.APIVersion, "kind": kind, "spec": map[string]any{"interactive": false}})
	if err != nil {
		return execStatus{}, err
	}
	cmd := exec.CommandContext(ctx, e.Command, e.Args...)
	cmd.Env = append(os.Environ(), "KUBERNETES_EXEC_INFO="+string(info))
	for _, one := range e.Env {
		cmd.Env = append(cmd.Env, one.Name+"="+one.Value)
	}
	out, complaints := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, complaints, time.Second
	if err := cmd.Run(); err != nil {
		hint := ""
		if lines := strings.Split(strings.TrimSpace(complaints.kept.String()), "\n"); lines[len(lines)-1] != "" {
			hint = ": " + oneLine(lines[len(lines)-1])
		}
		if errors.Is(err, exec.ErrNotFound) && e.InstallHint != "" {
			hint += " (" + oneLine(e.InstallHint) + ")"
		}
		return execStatus{}, fmt.Errorf("credential plugin %s: %w%s", e.Command, err, hint)
	}
	var printed struct {
		APIVersion, Kind string
		Status           *execStatus
	}
	switch {
	case out.full:
		return execStatus{}, fmt.Errorf("credential plugin %s prints more than %d bytes", e.Command, maxCredential)
	case json.Unmarshal(out.kept.Bytes(), &printed) != nil || printed.Kind != kind || printed.APIVersion != e.APIVersion || printed.Status == nil:
		return execStatus{}, fmt.Errorf("credential plugin %s prints no %s of %s with a status", e.Command, kind, e.APIVersion)
	case printed.Status.Token == "" && printed.Status.Cert == "", (printed.Status.Cert == "") != (printed.Status.Key == ""):
		return execStatus{}, fmt.Errorf("credential plugin %s prints neither a token nor a certificate with its key", e.Command)
	case strings.ContainsAny(printed.Status.Token, " \r\n\t"):
		return execStatus{}, fmt.Errorf("credential plugin %s prints a token with white space in it", e.Command)
	}
	return *printed.Status, nil
}

// bounded keeps the first bytes that are written to it, and takes the rest for nothing.
type bounded struct {
	kept bytes.Buffer // not embedded: its ReadFrom knows no bound
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxCredential - b.kept.Len(); len(p) > room {
		b.full = true
		b.kept.Write(p[:room])
		return len(p), nil
	}
	return b.kept.Write(p)
}
