package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/nodeagent"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream"
	"github.com/lanyard-mtls/lanyard/nodeagent/upstream/trust"
)

// trustChoice is where the bundle comes from that the issuer is verified with at the first start. One of path, url, workloadAPI
// and insecure is set, or none.
type trustChoice struct {
	path, url, workloadAPI string
	unixSocket, format     string
	insecure               bool
	// unclear says that there are several, which has been told.
	unclear bool
	of      origin
}

// origin names the settings in errors: the flags' names, or the file's keys.
type origin struct{ path, url, format string }

// trust is what the file says. Its conflicts are faults of the file.
func (b *agentBlock) trust(conf *hclconf.File) trustChoice {
	t := trustChoice{
		path: b.TrustBundlePath, url: b.TrustBundleURL, workloadAPI: b.TrustBundleWorkloadAPI, insecure: b.InsecureBootstrap,
		unixSocket: b.TrustBundleUnixSocket, format: b.TrustBundleFormat,
		of: origin{"agent.trust_bundle_path", "agent.trust_bundle_url", "agent.trust_bundle_format"},
	}
	if conf == nil {
		return t
	}
	first := ""
	for _, source := range []struct {
		key string
		set bool
	}{{"trust_bundle_path", t.path != ""}, {"trust_bundle_url", t.url != ""}, {"trust_bundle_spiffe_workload_api", t.workloadAPI != ""}, {"insecure_bootstrap", t.insecure}} {
		key := "agent." + source.key
		switch {
		case !source.set:
		case first == "":
			first = key
		case t.insecure && key == "agent.insecure_bootstrap":
			t.unclear = true
			conf.Errorf(conf.At(key), "%s and %s are both set: keep the bundle", key, first)
		default:
			t.unclear = true
			conf.Errorf(conf.At(key), "%s and %s are both set: keep one", key, first)
		}
	}
	if t.unixSocket != "" && t.url == "" {
		conf.Errorf(conf.At("agent.trust_bundle_unix_socket"), "agent.trust_bundle_unix_socket: what to ask for there is missing: set trust_bundle_url to an http:// URL")
	}
	return t
}

// trust lets the flags go before the file: one that names a bundle replaces what the file says of it.
func (f *flags) trust(t trustChoice) (trustChoice, error) {
	named := 0
	for _, is := range []bool{f.trustBundle != "", f.trustBundleURL != "", f.insecureBootstrap} {
		if is {
			named++
		}
	}
	switch {
	case named > 1 && f.insecureBootstrap:
		return t, cli.Usagef("-trustBundle and -trustBundleUrl can't be combined with -insecureBootstrap: the bundle makes it secure")
	case named > 1:
		return t, cli.Usagef("-trustBundle and -trustBundleUrl can't be combined: keep one")
	case named == 1:
		t = trustChoice{path: f.trustBundle, url: f.trustBundleURL, insecure: f.insecureBootstrap, format: t.format,
			unixSocket: t.unixSocket, of: t.of}
		if t.path != "" {
			t.of.path = "-trustBundle"
		}
		if t.url != "" {
			t.of.url = "-trustBundleUrl"
		}
		if !strings.HasPrefix(t.url, "http://") { // the file's socket is for such
			t.unixSocket = ""
		}
	}
	if f.trustBundleFormat != "" {
		t.format, t.of.format = f.trustBundleFormat, "-trustBundleFormat"
	}
	return t, nil
}

// trustFault is what is wrong with one of the settings.
type trustFault struct {
	key string
	err error
}

// into checks the choice and has the agent make it. A file is read; nothing else is.
func (t trustChoice) into(ctx context.Context, c *nodeagent.Config) *trustFault {
	c.InsecureBootstrap = t.insecure
	if t.unclear {
		return nil
	}
	if t.format != "" && t.format != trust.PEM && t.format != trust.SPIFFE {
		return &trustFault{t.of.format, fmt.Errorf("%q: want %s or %s", t.format, trust.PEM, trust.SPIFFE)}
	}
	switch {
	case t.path != "":
		if c.TrustDomain.IsZero() {
			return nil
		}
		source := trust.File{TrustDomain: c.TrustDomain, Path: t.path, Format: t.format}
		pem, err := readBundle(ctx, source, c.DataDir)
		if err != nil {
			return &trustFault{t.of.path, err}
		}
		// An agent that never begins anew meets its issuer with this bundle or not at all, and says so at once. One that does
		// reads the file again then.
		if c.Rebootstrap == "" || c.Rebootstrap == upstream.RebootstrapNever {
			c.TrustBundle = pem
		} else {
			c.TrustSource = source
		}
	case t.url != "":
		if err := checkBundleURL(t.url, t.unixSocket != ""); err != nil {
			return &trustFault{t.of.url, err}
		}
		c.TrustSource = trust.URL{TrustDomain: c.TrustDomain, URL: t.url, UnixSocket: t.unixSocket, Format: t.format}
	case t.workloadAPI != "":
		if err := workloadapi.ValidateAddress(t.workloadAPI); err != nil {
			return &trustFault{"agent.trust_bundle_spiffe_workload_api", fmt.Errorf("%q: want unix:///PATH or tcp://IP:PORT: %w", t.workloadAPI, err)}
		}
		c.TrustSource = trust.WorkloadAPI{TrustDomain: c.TrustDomain, Addr: t.workloadAPI}
	}
	return nil
}

// readBundle gives the bundle of a file, in PEM. It may be gone once the agent has joined, which keeps the bundle itself.
func readBundle(ctx context.Context, source trust.File, dataDir string) ([]byte, error) {
	bundle, err := source.Bundle(ctx)
	if errors.Is(err, fs.ErrNotExist) && joinedBefore("", dataDir) {
		return nil, nil
	}
	if unreadable, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, fmt.Errorf("%s: %w; it is the output of \"lanyard issuer bundle show\"", source.Path, unreadable.Err)
	}
	if err != nil {
		return nil, err
	}
	return bundle.Marshal()
}

// checkBundleURL reports what is wrong with a URL: over a network it must be one that can't be tampered with.
func checkBundleURL(text string, onSocket bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.Unwrap(err)
	case onSocket && u.Scheme != "http":
		return fmt.Errorf("%q: want http:// with trust_bundle_unix_socket", text)
	case !onSocket && u.Scheme != "https":
		return fmt.Errorf("%q: want https://", text)
	case u.Host == "":
		return fmt.Errorf("%q: the host is missing", text)
	}
	for key := range u.Query() {
		if onSocket && (strings.HasPrefix(key, "spiffe-") || strings.HasPrefix(key, "spire-")) {
			return fmt.Errorf("%q: the parameter %s is for what the agent says of itself: remove it", text, key)
		}
	}
	return nil
}
