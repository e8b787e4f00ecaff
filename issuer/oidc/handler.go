package oidc

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/keys"
)

// handler answers requests.
type handler struct {
	domains  map[string]bool
	issuer   *url.URL // nil: of the host that was asked for
	issuedAs string   // issuer as it was configured, and is in tokens to the letter
	jwksURI  string   // "": below the issuer
	prefix   string   // without a slash at its end
	insecure bool     // URLs are of http where a client came without TLS
	keys     func() keysResult
	routes   map[string]http.HandlerFunc
	log      *slog.Logger
	verbose  bool
	now      func() time.Time
}

// keysResult is the key set now. ok is false if there is none.
type keysResult struct {
	doc document
	ok  bool
	err error
}

// newHandler makes the handler of a configuration that is valid.
func newHandler(cfg Config) (*handler, error) {
	h := &handler{
		domains:  map[string]bool{},
		jwksURI:  cfg.JWKSURI,
		prefix:   strings.TrimRight(cfg.PathPrefix, "/"),
		insecure: cfg.AllowInsecureScheme,
		log:      cfg.Log,
		verbose:  cfg.LogRequests,
		now:      cfg.Now,
	}
	set := &keySet{log: cfg.Log}
	if cfg.SetKeyUse {
		set.use = "sig"
	}
	h.keys = func() keysResult {
		doc, ok, err := set.document(cfg.Keys())
		return keysResult{doc, ok, err}
	}
	prefixes := []string{h.prefix}
	if cfg.Issuer != "" {
		issuer, err := url.Parse(cfg.Issuer)
		if err != nil {
			return nil, err
		}
		h.issuer, h.issuedAs = issuer, cfg.Issuer
		prefixes = append(prefixes, strings.TrimRight(issuer.Path, "/"))
		if len(cfg.Domains) == 0 {
			h.domains[strings.ToLower(issuer.Hostname())] = true
		}
	}
	for _, domain := range cfg.Domains {
		name, err := parseDomain(domain)
		if err != nil {
			return nil, err
		}
		h.domains[name] = true
	}
	h.routes = map[string]http.HandlerFunc{}
	for _, prefix := range prefixes {
		h.routes[prefix+discoveryPath] = h.serveDiscovery
		h.routes[prefix+keysPath] = h.serveKeys
	}
	return h, nil
}

// ServeHTTP answers the two paths and refuses all else.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.verbose {
		began := h.now()
		watched := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		w = watched
		defer func() {
			h.log.Info("request", "method", r.Method, "path", r.URL.Path, "host", r.Host, "peer", r.RemoteAddr,
				"status", watched.status, "took", h.now().Sub(began))
		}()
	}
	route, ok := h.routes[r.URL.Path]
	switch {
	case !ok:
		http.Error(w, "not found", http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case r.ContentLength != 0: // -1 where it is not known
		w.Header().Set("Connection", "close") // the body is not read
		http.Error(w, "a request has no body here", http.StatusRequestEntityTooLarge)
	default:
		route(w, r)
	}
}

// serveKeys is for any host: who has a URL of the keys, such as that of a proxy, has it from the document.
func (h *handler) serveKeys(w http.ResponseWriter, r *http.Request) {
	keys := h.keys()
	switch {
	case keys.err != nil:
		h.log.Error("cannot make the key set", "error", keys.err)
		http.Error(w, "document not available", http.StatusInternalServerError)
	case !keys.ok:
		http.Error(w, "jwt not supported/enabled in this service", http.StatusNotImplemented)
	default:
		serve(w, r, keys.doc)
	}
}

// serve sends doc, or that it is what the client has. A cache has to ask each time: keys go when they are revoked.
func serve(w http.ResponseWriter, r *http.Request, doc document) {
	header := w.Header()
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", doc.etag)
	header.Set("Access-Control-Allow-Origin", "*") // public, and read by programs in browsers
	header.Set("X-Content-Type-Options", "nosniff")
	if matches(r.Header.Values("If-None-Match"), doc.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", "application/json")
	w.Write(doc.body) // an error is the client's going away; of HEAD net/http sends the headers only
}

// matches reports whether a client's If-None-Match names etag (RFC 9110, section 13.1.2: compared weakly).
func matches(headers []string, etag string) bool {
	for _, header := range headers {
		for one := range strings.SplitSeq(header, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// statusWriter keeps the status for the log.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
