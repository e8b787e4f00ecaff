package metrics

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"unicode"

	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// Validate returns everything that is wrong with c, as setting.Errors about
// metrics_prefix, metrics_graphite, metrics_url and metrics_interval. It does no
// I/O.
func (c Config) Validate() error {
	var errs []error
	if strings.ContainsFunc(c.Prefix, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		errs = append(errs, setting.Errorf("metrics_prefix", c.Prefix, "holds a space or what can't be printed: give letters, digits, dots and dashes"))
	}
	if c.Graphite != "" {
		if host, port, err := net.SplitHostPort(c.Graphite); err != nil || host == "" || port == "" {
			errs = append(errs, setting.Errorf("metrics_graphite", c.Graphite, "not an address: give HOST:PORT"))
		}
	}
	if c.URL != "" {
		if err := checkURL(c.URL); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Interval < 0 {
		errs = append(errs, setting.Errorf("metrics_interval", c.Interval.String(), "must be more than 0"))
	}
	return errors.Join(errs...)
}

// checkURL never shows a secret: of a URL that cannot be parsed, nothing.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return setting.Errorf("metrics_url", "", "not a URL: give http://HOST:PORT/PATH")
	case u.Scheme != "http" && u.Scheme != "https":
		return setting.Errorf("metrics_url", redacted(s), "has to start with http:// or https://")
	case u.Host == "":
		return setting.Errorf("metrics_url", redacted(s), "names no host: give http://HOST:PORT/PATH")
	}
	return nil
}
