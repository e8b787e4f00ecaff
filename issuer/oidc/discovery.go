package oidc

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// discovery is OpenID Provider Metadata (OpenID Connect Discovery 1.0, section 3), in SPIRE's order and with its values:
// what the standard requires, and nobody here can be sent to for authorization.
type discovery struct {
	Issuer                string   `json:"issuer"`
	JWKSURI               string   `json:"jwks_uri"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	ResponseTypes         []string `json:"response_types_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	SigningAlgorithms     []string `json:"id_token_signing_alg_values_supported"`
}

// serveDiscovery is for the configured domains only, or anybody's name that leads here would do as an issuer.
func (h *handler) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	host, scheme := h.asked(r)
	domain, port, err := splitHost(host)
	if err == nil && !h.domains[domain] {
		http.Error(w, `domain "`+domain+`" is not allowed`, http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	issuer, issuedAs := h.issuer, h.issuedAs
	if issuer == nil {
		issuer = &url.URL{Scheme: scheme, Host: joinHost(domain, port), Path: h.prefix}
		issuedAs = issuer.String()
	}
	body, err := json.MarshalIndent(discovery{
		Issuer:            issuedAs,
		JWKSURI:           h.keysURL(issuer),
		ResponseTypes:     []string{"id_token"},
		SubjectTypes:      []string{"public"},
		SigningAlgorithms: []string{"RS256", "ES256", "ES384"},
	}, "", "  ")
	if err != nil {
		http.Error(w, "failed to marshal document", http.StatusInternalServerError)
		return
	}
	serve(w, r, newDocument(body))
}

// keysURL is where clients find the keys of issuer.
func (h *handler) keysURL(issuer *url.URL) string {
	if h.jwksURI != "" {
		return h.jwksURI
	}
	keys := url.URL{Scheme: issuer.Scheme, Host: issuer.Host, Path: strings.TrimRight(issuer.Path, "/") + keysPath}
	return keys.String()
}

// asked returns the host and the scheme that the client asked for, which a proxy in front hands on in headers, as
// SPIRE's takes them. To tell lies there leads to the allowed domains only, and only the liar.
func (h *handler) asked(r *http.Request) (host, scheme string) {
	host, scheme = r.Host, "https"
	if forwarded := first(r.Header.Get("X-Forwarded-Host")); forwarded != "" {
		host = forwarded
	}
	proto := first(r.Header.Get("X-Forwarded-Proto"))
	if proto == "" {
		proto = first(r.Header.Get("X-Forwarded-Scheme"))
	}
	if h.insecure && r.TLS == nil && !strings.EqualFold(proto, "https") {
		scheme = "http"
	}
	return host, scheme
}

// first is the first of a list, which is the client's where several proxies have added to it.
func first(list string) string {
	one, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(one)
}
