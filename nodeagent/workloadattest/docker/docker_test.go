package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/registration"
	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// The real daemon is in integration.TestDocker…; here is what it can't be made to
// do: answer wrongly, late or too much.

// daemonOf serves handler as a daemon on a socket of this user's.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ly")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "d.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Close(); running.Wait() })
	return path
}

const recorded = `{"Id":"ID","Name":"/web","Image":"sha256:4e71fe2a","State":{"Running":true,"Pid":1},
"Config":{"Image":"shop/web:1","Labels":{"app":"web","a:b":"c:d","empty":""},"Env":["PATH=/bin","PASS=a=b",""]}}`

var testID = strings.Repeat("5e", 32)

func TestSelectors(t *testing.T) {
	info, err := parse(200, []byte(recorded))
	if err != nil {
		t.Fatal(err)
	}
	var want []registration.Selector
	for _, v := range []string{
		"env:PASS=a=b", "env:PATH=/bin", "image_config_digest:sha256:4e71fe2a", "image_id:shop/web:1",
		"label:a:b:c:d", "label:app:web", "label:empty:", "name:web",
	} {
		want = append(want, registration.Selector{Type: "docker", Value: v})
	}
	if diff := cmp.Diff(want, info.selectors()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	info.Image = "4e71fe2a" // as Podman has it
	if diff := cmp.Diff(want, info.selectors()); diff != "" {
		t.Errorf("Podman's (-want +got)\n%s", diff)
	}
}

func TestDaemonsAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		status  int
		body    string
		want    string
		unknown bool
	}{
		"unknown":         {404, `{"message":"No such container: ` + testID + `"}`, "no such container", true},
		"podman, unknown": {404, `{"cause":"no such container","message":"no container with name or ID \"x\" found: no such container","response":404}`, "", true},
		"no such path":    {404, `{"message":"page not found"}`, "404 Not Found", false},
		"version":         {400, `{"message":"client version 1.99 is too new. Maximum supported API version is 1.41"}`, "client version 1.99 is too new", false},
		"no JSON":         {200, `<html>`, "no description of a container", false},
		"another":         {200, recorded, `it answers with "ID"`, false},
		"too long":        {200, strings.Repeat(" ", maxAnswer+1), "longer than", false},
		"elsewhere":       {302, "", "redirects", false},
	} {
		t.Run(name, func(t *testing.T) {
			path := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1.41/containers/"+testID+"/json" {
					t.Errorf("asked for %s", r.URL)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			d, err := newDaemon("docker", "unix://"+path, "1.41")
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.inspect(t.Context(), testID)
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, errUnknown) != test.unknown {
				t.Errorf("%v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "Get ") {
				t.Errorf("error %q", err)
			}
		})
	}
}

func TestDaemonThatDoesNotAnswer(t *testing.T) {
	done := make(chan struct{})
	path := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	})
	defer close(done)
	d, err := newDaemon("docker", path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.inspect(ctx, testID); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	d.patience = time.Millisecond
	if _, err := d.inspect(t.Context(), testID); err == nil || !strings.Contains(err.Error(), "no answer within 1ms") {
		t.Errorf("%v", err)
	}
	if d, err = newDaemon("docker", path+"x", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := d.inspect(t.Context(), testID); err == nil || !strings.Contains(err.Error(), path+"x: no such file") {
		t.Errorf("an absent daemon: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"want the absolute path":  {Socket: "tcp://10.0.0.1:2375"},
		"podman socket":           {PodmanSocket: "run/x"},
		"want an API version":     {Version: "latest/../"},
		"can match the same path": {Matchers: []string{"/a/<id>", "/*/<id>"}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
	p, err := New(Config{Socket: "unix:///x.sock", Version: "v1.41"})
	if err != nil || p.docker.socket != "/x.sock" || p.podman.socket != DefaultPodmanSocket || p.docker.prefix != "/v1.41" {
		t.Errorf("%+v, %v", p, err)
	}
}

// Whoever can put a socket in the daemon's place names identities.
func TestSocketOfOthersIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := serve(t, func(http.ResponseWriter, *http.Request) {})
	if err := checkSocket(path); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	link, far := filepath.Join(dir, "link"), filepath.Join(dir, "far")
	if err := errors.Join(os.Symlink("far/../d.sock", link), os.Symlink(dir, far)); err != nil {
		t.Fatal(err)
	}
	// far leads to dir, so link to what is beside dir.
	if err := checkSocket(link); err == nil {
		t.Error("accepted a link to nothing")
	}
	os.Remove(link)
	if err := os.Symlink("far/d.sock", link); err != nil {
		t.Fatal(err)
	}
	if err := checkSocket(link); err != nil {
		t.Errorf("a link of root's: %v", err)
	}
	for name, test := range map[string]struct {
		change, back func() error
		path, want   string
	}{
		"socket":    {func() error { return os.Chown(path, 12345, -1) }, func() error { return os.Chown(path, 0, -1) }, path, path + " belongs to uid 12345"},
		"directory": {func() error { return os.Chown(dir, 12345, -1) }, func() error { return os.Chown(dir, 0, -1) }, path, dir + " belongs to uid 12345"},
		"link":      {func() error { return os.Lchown(far, 12345, -1) }, func() error { return os.Lchown(far, 0, -1) }, link, far + " belongs to uid 12345"},
		"open":      {func() error { return os.Chmod(dir, 0o777) }, func() error { return os.Chmod(dir, 0o700) }, path, "chmod o-w " + dir},
		"file":      {func() error { return os.WriteFile(dir+"/f", nil, 0o600) }, func() error { return nil }, dir + "/f", "is not a socket"},
	} {
		if err := test.change(); err != nil {
			t.Fatal(err)
		}
		p := &daemon{name: "docker", socket: test.path}
		if _, err := p.dial(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err := test.back(); err != nil {
			t.Fatal(err)
		}
	}
}

// inCgroup starts a process in a new cgroup of the name.
func inCgroup(t *testing.T, parent, id string) *workloadattest.Process {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/unified/cgroup.procs"); err == nil {
		root += "/unified"
	}
	dir := filepath.Join(root, parent, id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skip("no cgroups can be made here:", err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		for d := dir; d != root; d = filepath.Dir(d) {
			os.Remove(d)
		}
	})
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0o644); err != nil {
		t.Skip("no process can be moved into a cgroup here:", err)
	}
	p, err := workloadattest.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// A daemon is asked once in a container's life, and not at all by someone who
// makes a cgroup that is called like a container.
func TestAsksOnceAndTellsImitations(t *testing.T) {
	parent := fmt.Sprintf("ly%d", os.Getpid())
	p := inCgroup(t, parent+"/docker", testID)
	imitation := inCgroup(t, parent+"/user.slice/user-1000.slice/user@1000.service", testID)
	stranger := inCgroup(t, parent+"/user.slice/user-1000.slice/user@1000.service", strings.Repeat("77", 32))
	var asked atomic.Int32
	var down atomic.Bool
	path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		id := strings.Split(r.URL.Path, "/")[2]
		switch {
		case down.Load():
			w.WriteHeader(500)
		case id != testID:
			w.WriteHeader(404)
			fmt.Fprint(w, `{"message":"No such container: x"}`)
		default:
			info := inspected{ID: id, Name: "/web"}
			// Not running yet: the process was there first.
			info.State.Running, info.State.Pid = n > 1, p.PID()
			json.NewEncoder(w).Encode(info)
		}
	})
	var log bytes.Buffer
	plugin, err := New(Config{Socket: path, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	var together sync.WaitGroup
	for range 5 {
		together.Go(func() {
			sel, err := plugin.Attest(t.Context(), p)
			if err != nil || len(sel) != 1 || sel[0].Value != "name:web" {
				t.Errorf("%v, %v", sel, err)
			}
		})
	}
	together.Wait()
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	down.Store(true)
	if sel, err := plugin.Attest(t.Context(), p); err != nil || len(sel) != 1 {
		t.Errorf("while the daemon is away: %v, %v", sel, err)
	}
	if sel, err := plugin.Attest(t.Context(), imitation); err == nil || !strings.Contains(err.Error(), "but not in that container") {
		t.Errorf("imitation: %v, %v", sel, err)
	}
	if _, err := plugin.Attest(t.Context(), stranger); err == nil || !strings.Contains(err.Error(), "500 Internal Server Error") {
		t.Errorf("unseen, while the daemon is away: %v", err)
	}
	down.Store(false)
	n := asked.Load()
	for range 3 {
		if sel, err := plugin.Attest(t.Context(), stranger); err != nil || sel != nil {
			t.Errorf("a user's own: %v, %v", sel, err)
		}
	}
	if asked.Load() != n+1 {
		t.Errorf("asked %d times for a container that is not the daemon's", asked.Load()-n)
	}
	if strings.Count(log.String(), "that a user runs") != 1 {
		t.Errorf("log: %s", log.String())
	}
}

func TestImitationsDoNotPushContainersOut(t *testing.T) {
	c := newCache()
	c.record("real").learnt.Store(true)
	for i := range 2 * maxKnown {
		c.record(fmt.Sprint(i))
	}
	if !c.record("real").learnt.Load() || len(c.records) > maxKnown {
		t.Errorf("%d records", len(c.records))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(200, []byte(recorded))
	f.Add(404, []byte(`{"message":"No such container: x"}`))
	f.Add(200, []byte(`{"Config":{"Labels":null,"Env":[null]}}`))
	f.Fuzz(func(t *testing.T, status int, data []byte) {
		info, err := parse(status, data)
		if err != nil {
			return
		}
		for _, s := range info.selectors() {
			if _, err := registration.ParseSelector(s.String()); err != nil || s.Type != "docker" {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
}
