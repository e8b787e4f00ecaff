package k8s

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// A hundred processes of containers that are not known yet make one request; those
// that are known make none.
func TestRequestsAreShared(t *testing.T) {
	k := newKubelet(t)
	k.waiting, k.answer = make(chan struct{}, 1), make(chan struct{})
	p := newPlugin(t, k.cfg)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
				t.Error(err)
			}
		})
	}
	<-k.waiting
	close(k.answer)
	all.Wait()
	for range 100 {
		if _, err := attest(t.Context(), p, podUID, initID); err != nil {
			t.Error(err)
		}
	}
	if n := k.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// Requests begin no faster than configured, however many ask for what is not
// there.
func TestRequestsAreBounded(t *testing.T) {
	k := newKubelet(t)
	k.cfg.PollRetryInterval = 20 * time.Millisecond
	p := newPlugin(t, k.cfg)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { _, _ = attest(t.Context(), p, podUID, fmt.Sprintf("%064x", i)) })
	}
	all.Wait()
	if n, most := int(k.requests.Load()), 1+int(time.Since(begin)/k.cfg.PollRetryInterval); n > most {
		t.Errorf("%d requests in %v, want at most %d", n, time.Since(begin), most)
	}
}

// A token that was rotated is read when the old one is refused; it is sent to
// nobody the kubelet redirects to.
func TestTokenIsReadAnew(t *testing.T) {
	k := newKubelet(t)
	k.cfg.MaxPollAttempts = 1
	p := newPlugin(t, k.cfg)
	if _, err := attest(t.Context(), p, podUID, containerID); err != nil {
		t.Fatal(err)
	}
	k.set(func() { k.token = "new" })
	if _, err := attest(t.Context(), p, podUID, strings.Repeat("d", 64)); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "secret-token") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(k.cfg.TokenPath, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := attest(t.Context(), p, podUID, strings.Repeat("d", 64)); err == nil || strings.Contains(err.Error(), "401") {
		t.Errorf("error %v", err)
	}
	to := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("redirected") }))
	defer to.Close()
	k.Config.Handler = http.RedirectHandler(to.URL, http.StatusFound)
	if _, err := attest(t.Context(), p, podUID, strings.Repeat("d", 64)); err == nil || !strings.Contains(err.Error(), "redirected") {
		t.Errorf("error %v", err)
	}
}

// Called by an address, the kubelet's certificate may have any name, but must be
// of the CA; called by a name, it must have that.
func TestKubeletIsVerified(t *testing.T) {
	k := newKubelet(t)
	other := filepath.Join(t.TempDir(), "other.crt")
	if err := os.WriteFile(other, testca.PEM(testca.New(t, "example.org").Bundle().X509Authorities()...), 0o600); err != nil {
		t.Fatal(err)
	}
	k.cfg.MaxPollAttempts = 1
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"its CA":                  {func(*Config) {}, ""},
		"another CA":              {func(c *Config) { c.KubeletCAPath = other }, "unknown authority"},
		"another CA, not checked": {func(c *Config) { c.KubeletCAPath, c.SkipKubeletVerification = other, true }, ""},
		"its name":                {func(c *Config) { c.NodeName = "127.0.0.1" }, ""},
		"another name":            {func(c *Config) { c.NodeName = "localhost" }, "not localhost"},
		"no CA":                   {func(c *Config) { c.KubeletCAPath = "/none" }, "unable to load kubelet CA"},
		"no certificates":         {func(c *Config) { c.KubeletCAPath = c.TokenPath }, "no PEM certificates"},
		"no token":                {func(c *Config) { c.TokenPath = "/none" }, "unable to load token"},
		"no one":                  {func(c *Config) { c.TokenPath, c.UseAnonymousAuthentication = "", true }, "401"},
		"no certificate":          {func(c *Config) { c.CertificatePath, c.PrivateKeyPath = "/none", "/none" }, "unable to load certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := k.cfg
			test.change(&cfg)
			_, err := attest(t.Context(), newPlugin(t, cfg), podUID, containerID)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestReadOnlyPort(t *testing.T) {
	k := newKubelet(t)
	plainHTTP := httptest.NewServer(http.HandlerFunc(k.serve))
	defer plainHTTP.Close()
	k.token = ""
	cfg := Config{KubeletReadOnlyPort: portOf(t, plainHTTP.Listener), KubeletCAPath: "/none", TokenPath: "/none"}
	if _, err := attest(t.Context(), newPlugin(t, cfg), podUID, containerID); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for want, cfg := range map[string]Config{
		"cannot use both the read-only and secure port": {KubeletReadOnlyPort: 1, KubeletSecurePort: 2},
		"is not a port": {KubeletSecurePort: 70000},
		"the private key path is required with the certificate path": {CertificatePath: "x"},
		"the certificate path is required with the private key path": {PrivateKeyPath: "x"},
		"use_anonymous_authentication excludes":                      {UseAnonymousAuthentication: true, TokenPath: "x"},
		"max_poll_attempts -1":                                       {MaxPollAttempts: -1},
		"poll_retry_interval -1s":                                    {PollRetryInterval: -time.Second},
	} {
		errs := cfg.Validate()
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%v, want %q", errs, want)
		}
	}
	if errs := (Config{}).Validate(); errs != nil {
		t.Error(errs)
	}
}
