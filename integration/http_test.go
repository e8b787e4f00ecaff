package integration

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// nginxConf is one process that serves files and takes uploads. $ADDR and $DIR are filled in.
const nginxConf = `
daemon off;
master_process off;
pid $DIR/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
  access_log off;
  keepalive_requests 1000000;
  client_max_body_size 0;
  client_body_temp_path $DIR/body;
  proxy_temp_path $DIR/proxy;
  fastcgi_temp_path $DIR/fastcgi;
  uwsgi_temp_path $DIR/uwsgi;
  scgi_temp_path $DIR/scgi;
  server {
    listen $ADDR;
    root $DIR/www;
    dav_methods PUT;
  }
}
`

// startNginx serves the files of the stage's www folder, which it makes, and returns address and folder.
func startNginx(t *testing.T, s *harness.Stage) (addr, www string) {
	t.Helper()
	addr = s.Addr()
	dir := filepath.Dir(s.Path("nginx", "x"))
	www = filepath.Dir(s.WriteFile("nginx/www/index.html", greeting))
	conf := s.WriteFile("nginx/nginx.conf", strings.NewReplacer("$ADDR", addr, "$DIR", dir).Replace(nginxConf))
	s.Start("nginx", program(t, "nginx"), "-p", dir, "-c", conf, "-e", "stderr")
	s.Until(fetchLimit, "nginx", func(ctx context.Context) error {
		_, err := curl(ctx, addr)
		return err
	})
	return addr, www
}

func TestSidecarHTTP(t *testing.T) {
	t.Parallel()
	command := program(t, "curl")
	s := newSVIDs(t)
	addr, www := startNginx(t, s.Stage)
	p := s.pair(addr)
	url := "http://" + p.client.Listen + "/"
	body := random(100 << 20)
	if err := os.WriteFile(filepath.Join(www, "large"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	ended := 0
	t.Run("keep-alive", func(t *testing.T) {
		args := []string{"-sS", "-w", "%{num_connects} "}
		for range 4 {
			args = append(args, "-o", "/dev/null", url)
		}
		made := run(t, command, args...)
		if strings.TrimSpace(made) != "1 0 0 0" {
			t.Errorf("connections made for each of four requests: %s", made)
		}
		ended++
		connections(t, p.client, ended, "closed", "reset")
		connections(t, p.server, ended, "closed", "reset")
	})
	t.Run("100 MB down", func(t *testing.T) {
		file := p.Path("down")
		run(t, command, "-sS", "-o", file, url+"large")
		same(t, file, body)
		ended++
		last := connections(t, p.client, ended, "closed", "reset")[ended-1]
		if got := last["returned"].(float64); int(got) <= len(body) || int(got) > len(body)+1000 {
			t.Errorf("the record tells of %.0f bytes, of a body of %d and its header", got, len(body))
		}
	})
	t.Run("100 MB up", func(t *testing.T) {
		code := run(t, command, "-sS", "-T", filepath.Join(www, "large"), "-o", "/dev/null", "-w", "%{http_code}", url+"uploaded")
		if code != "201" {
			t.Errorf("status %s", code)
		}
		same(t, filepath.Join(www, "uploaded"), body)
	})
	t.Run("wrk", func(t *testing.T) {
		out := run(t, program(t, "wrk"), "-t", "2", "-c", "32", "-d", "2s", url)
		if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") || !regexp.MustCompile(`[1-9]\d* requests in`).MatchString(out) {
			t.Errorf("%s", out)
		}
	})
}

// same fails the test unless the file holds what it should.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s: %d bytes of %d, the first different one at %d", path, len(got), len(want), at)
	}
}
