package kube

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// fake answers as an API server does, or as one must not: for faults, the rest is tested on a real one (../kubernetes_test.go).
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	asked   []*http.Request
	answers map[string]http.HandlerFunc // by path; of others it knows nothing
}

func newFake(t testing.TB) *fake {
	f := &fake{answers: map[string]http.HandlerFunc{}}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that trust it not
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	answer := f.answers[r.URL.Path]
	f.mu.Unlock()
	if answer == nil {
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"kind":"Status","message":"no such object","code":404}`))
		return
	}
	answer(w, r)
}

// answer sets what is answered at path from now on.
func (f *fake) answer(path, text string) {
	f.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) })
}

func (f *fake) handle(path string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = h
}

// last is the last request.
func (f *fake) last() *http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[len(f.asked)-1]
}

// ca is the certificate to trust the fake by, in PEM.
func (f *fake) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
}

type object = map[string]any

// kubeconfig is a file's content with one cluster and one user.
func kubeconfig(t testing.TB, cluster, user object) []byte {
	t.Helper()
	data, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "c", "preferences": object{},
		"contexts": []object{{"name": "other", "context": object{}}, {"name": "c", "context": object{"cluster": "k", "user": "u", "namespace": "x"}}},
		"clusters": []object{{"name": "k", "cluster": cluster}},
		"users":    []object{{"name": "u", "user": user}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// client is a client of the fake as user, with its kubeconfig file.
func (f *fake) client(t testing.TB, user object) (c *Client, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "config")
	testca.Write(t, file, kubeconfig(t, f.cluster(), user))
	c = New(Config{KubeConfigFile: file})
	t.Cleanup(c.Close)
	return c, file
}

func (f *fake) cluster() object {
	return object{"server": f.URL, "certificate-authority-data": base64.StdEncoding.EncodeToString(f.ca())}
}

// script writes a program, for plugins.
func script(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
