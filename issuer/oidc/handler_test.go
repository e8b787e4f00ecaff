package oidc

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/lanyard-mtls/lanyard/internal/spireapi/types"
)

// ask has a request answered by a server of cfg that doesn't listen.
func ask(t testing.TB, cfg Config, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// plain is the configuration of plain HTTP for oidc.test.
func plain(keys ...*types.JWTKey) Config {
	return Config{
		Domains: []string{"oidc.test"}, Listen: "127.0.0.1:0", Plaintext: true,
		Keys: func() []*types.JWTKey { return keys },
	}
}

// The documents are to the byte what oidc-discovery-provider 1.16 answers.
func TestDiscoveryIsSPIREs(t *testing.T) {
	w := ask(t, plain(), httptest.NewRequest(http.MethodGet, "http://oidc.test:8443/.well-known/openid-configuration", nil))
	want := `{
  "issuer": "https://oidc.test:8443",
  "jwks_uri": "https://oidc.test:8443/keys",
  "authorization_endpoint": "",
  "response_types_supported": [
    "id_token"
  ],
  "subject_types_supported": [
    "public"
  ],
  "id_token_signing_alg_values_supported": [
    "RS256",
    "ES256",
    "ES384"
  ]
}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-SPIRE's +ours)\n%s", diff)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestKeySetNamesWhatVerifiersNeed(t *testing.T) {
	signer := newAuthority(t, "key1", jose.ES384)
	for _, use := range []string{"", "sig"} {
		cfg := plain(signer.published(t))
		cfg.SetKeyUse = use != ""
		w := ask(t, cfg, httptest.NewRequest(http.MethodGet, "http://any.test/keys", nil))
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("%v: %s", err, w.Body)
		}
		key := set.Keys[0]
		delete(key, "x")
		delete(key, "y")
		want := map[string]string{"kty": "EC", "kid": "key1", "crv": "P-384", "alg": "ES384"}
		if use != "" {
			want["use"] = use
		}
		if diff := cmp.Diff(want, key); diff != "" {
			t.Errorf("use %q (-want +got)\n%s", use, diff)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	good := newAuthority(t, "key1", jose.ES256).published(t)
	const discovery = "http://oidc.test/.well-known/openid-configuration"
	for _, test := range []struct {
		name, method, url, body string
		keys                    []*types.JWTKey
		status                  int
		text                    string
	}{
		{"a foreign domain", "GET", "http://other.test/.well-known/openid-configuration", "", nil, 400, `domain "other.test" is not allowed`},
		{"a domain that is none", "GET", "http://a..b/.well-known/openid-configuration", "", nil, 400, "not a domain name"},
		{"a domain below", "GET", "http://x.oidc.test/.well-known/openid-configuration", "", nil, 400, "not allowed"},
		{"another path", "GET", "http://oidc.test/", "", nil, 404, "not found"},
		{"a path below", "GET", "http://oidc.test/keys/", "", nil, 404, "not found"},
		{"POST", "POST", discovery, "", nil, 405, "method not allowed"},
		{"DELETE", "DELETE", "http://oidc.test/keys", "", nil, 405, "method not allowed"},
		{"a body", "GET", discovery, "x", nil, 413, "no body"},
		{"no keys", "GET", "http://oidc.test/keys", "", nil, 501, "jwt not supported/enabled in this service"},
		{"no usable key", "GET", "http://oidc.test/keys", "", []*types.JWTKey{{KeyId: "x", PublicKey: []byte("x")}}, 501, "jwt not supported"},
		{"a bad key beside a good one", "GET", "http://oidc.test/keys", "", []*types.JWTKey{{KeyId: "bad"}, good}, 200, `"kid": "key1"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.url, strings.NewReader(test.body))
			w := ask(t, plain(test.keys...), r)
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.text) {
				t.Errorf("%d %q, want %d and %q", w.Code, w.Body, test.status, test.text)
			}
			if test.status == http.StatusMethodNotAllowed && w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
		})
	}
}

func TestHostsThatAreTheSame(t *testing.T) {
	for host, issuer := range map[string]string{
		"OIDC.test":      "https://oidc.test",
		"oidc.test.":     "https://oidc.test",
		"oidc.test:8443": "https://oidc.test:8443",
		"127.0.0.1:99":   "https://127.0.0.1:99",
		"[::1]:99":       "https://[::1]:99",
		"[::1]":          "https://[::1]",
	} {
		cfg := plain()
		cfg.Domains = []string{"oidc.test", "127.0.0.1", "::1"}
		r := httptest.NewRequest(http.MethodGet, "/.well-known/openid-configuration", nil)
		r.Host = host
		w := ask(t, cfg, r)
		if !strings.Contains(w.Body.String(), `"issuer": "`+issuer+`"`) {
			t.Errorf("host %q: %d %s", host, w.Code, w.Body)
		}
	}
}

func TestProxyHeadersNameTheHostAndScheme(t *testing.T) {
	for _, test := range []struct {
		name     string
		insecure bool
		headers  map[string]string
		issuer   string
	}{
		{"none", false, nil, "https://backend.test"},
		{"none, insecure", true, nil, "http://backend.test"},
		{"host", false, map[string]string{"X-Forwarded-Host": "oidc.test"}, "https://oidc.test"},
		{"host and scheme", true, map[string]string{"X-Forwarded-Host": "oidc.test", "X-Forwarded-Proto": "https"}, "https://oidc.test"},
		{"two proxies", true, map[string]string{"X-Forwarded-Host": "oidc.test, inner.test", "X-Forwarded-Scheme": "https, http"}, "https://oidc.test"},
		{"a host that is not ours", false, map[string]string{"X-Forwarded-Host": "evil.test"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := plain()
			cfg.Domains, cfg.AllowInsecureScheme = []string{"oidc.test", "backend.test"}, test.insecure
			r := httptest.NewRequest(http.MethodGet, "http://backend.test/.well-known/openid-configuration", nil)
			for name, value := range test.headers {
				r.Header.Set(name, value)
			}
			w := ask(t, cfg, r)
			var got struct{ Issuer string }
			json.Unmarshal(w.Body.Bytes(), &got) // of a refusal "" is left
			if got.Issuer != test.issuer {
				t.Errorf("issuer %q, want %q", got.Issuer, test.issuer)
			}
		})
	}
}

func TestClientsThatHaveTheDocumentGetNoOther(t *testing.T) {
	keys := &bundle{}
	keys.set(newAuthority(t, "key1", jose.ES256).published(t))
	cfg := plain()
	cfg.Keys = keys.list
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{discoveryPath, keysPath} {
		get := func(method, have string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "http://oidc.test"+path, nil)
			if have != "" {
				r.Header.Set("If-None-Match", have)
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			return w
		}
		first := get("GET", "")
		etag := first.Header().Get("ETag")
		if first.Code != 200 || etag == "" || first.Header().Get("Cache-Control") != "no-cache" ||
			first.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Fatalf("%s: %d %v", path, first.Code, first.Header())
		}
		for _, have := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
			if w := get("GET", have); w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("ETag") != etag {
				t.Errorf("%s with %s: %d, %d bytes", path, have, w.Code, w.Body.Len())
			}
		}
		if w := get("HEAD", ""); w.Code != 200 || w.Header().Get("ETag") != etag {
			t.Errorf("HEAD %s: %d %v", path, w.Code, w.Header())
		}
		if path == keysPath {
			keys.set(newAuthority(t, "key2", jose.ES256).published(t))
			if w := get("GET", etag); w.Code != 200 || !strings.Contains(w.Body.String(), "key2") {
				t.Errorf("after a rotation: %d %s", w.Code, w.Body)
			}
		}
	}
}

// FuzzDiscovery holds that whatever a client says of the host, the document names no issuer outside the domains.
func FuzzDiscovery(f *testing.F) {
	for _, seed := range []string{"oidc.test", "oidc.test:443", "[::1]:1", "evil.test", "oidc.test@evil.test", "oidc.test/evil", "a:b:c", "[", "oidc.test:", ""} {
		f.Add(seed, seed)
	}
	s, err := New(plain())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, forwarded string) {
		r := httptest.NewRequest(http.MethodGet, discoveryPath, nil)
		r.Host = host
		r.Header.Set("X-Forwarded-Host", forwarded)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			return
		}
		var doc struct{ Issuer string }
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(doc.Issuer, "https://oidc.test")
		if !ok || strings.Trim(strings.TrimPrefix(rest, ":"), "0123456789") != "" {
			t.Fatalf("host %q, forwarded %q: issuer %q", host, forwarded, doc.Issuer)
		}
	})
}
