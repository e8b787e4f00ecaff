package sidecarcmd

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/sidecar/setting"
)

// worded is an error in the words of the command line or file it is about.
type worded struct {
	text string
	err  error
}

func (w *worded) Error() string { return w.text }
func (w *worded) Unwrap() error { return w.err }

// flagWord gives the flag for a setting's key, with where its value is from if that isn't the command line. Several flags may set
// one: it is the first of those that were used.
func (o *options) flagWord(flags []flag, key string) (string, bool) {
	var found *flag
	for i := range flags {
		f := &flags[i]
		if f.key != key {
			continue
		}
		if o.given(f.name) || o.from[f.name] != "" {
			found = f
			break
		}
		if found == nil {
			found = f
		}
	}
	if found == nil {
		return "", false
	}
	if from := o.from[found.name]; from != "" {
		return "--" + found.name + ", from $" + from + ",", true
	}
	return "--" + found.name, true
}

// word gives the flag for a setting's key, for rules and advice; the key itself if there is none.
func (o *options) word(flags []flag, key string) string {
	for _, f := range flags {
		if f.key == key {
			return "--" + f.name
		}
	}
	return key
}

// usedWord is word, but of several flags for a key it gives one that was used.
func (o *options) usedWord(flags []flag, key string) string {
	for _, f := range flags {
		if f.key == key && (o.given(f.name) || o.from[f.name] != "") {
			return "--" + f.name
		}
	}
	return o.word(flags, key)
}

// noIdentity is told where no flag names a source of identity.
const noIdentity = "there is no identity: give --use-workload-api, or --cert with --key, or --keystore"

// inFlags words the setting.Errors in err by flag, one a line, in the order of the flags.
func (o *options) inFlags(flags []flag, err error) error {
	type placed struct {
		at  int
		err error
	}
	var out []placed
	for _, err := range setting.All(err) {
		e, ok := errors.AsType[*setting.Error](err)
		if !ok {
			out = append(out, placed{len(flags), err})
			continue
		}
		said := *e
		said.Problem = o.flagWords(flags, e.Problem)
		at := slices.IndexFunc(flags, func(f flag) bool { return f.key == e.Key })
		switch name, ok := o.flagWord(flags, e.Key); {
		case e.Key == "identity" && e.Value == "":
			out = append(out, placed{0, &worded{noIdentity, err}})
		case ok:
			out = append(out, placed{at, &worded{words(name, &said), err}})
		default:
			out = append(out, placed{len(flags), &worded{said.Error(), err}})
		}
	}
	slices.SortStableFunc(out, func(a, b placed) int { return a.at - b.at })
	var errs []error
	for _, p := range out {
		errs = append(errs, p.err)
	}
	return errors.Join(errs...)
}

// flagWords puts flags for the settings' keys in a sentence: for words that can only be keys, for keys before their values, and for
// those in a list of what is excluded.
func (o *options) flagWords(flags []flag, problem string) string {
	problem = regexp.MustCompile(`\b[a-z]+(_[a-z]+)+\b`).ReplaceAllStringFunc(problem, func(key string) string { return o.usedWord(flags, key) })
	list, isList := strings.CutPrefix(problem, "excludes ")
	if isList {
		keys, rest, _ := strings.Cut(list, ":")
		all := strings.Split(keys, ", ")
		for i, key := range all {
			all[i] = o.word(flags, key)
		}
		return "excludes " + strings.Join(all, ", ") + ":" + rest
	}
	for _, f := range flags {
		if value := o.set.Lookup(f.name).Value.String(); value != "" && !strings.Contains(f.key, "_") {
			problem = strings.ReplaceAll(problem, " "+f.key+" "+value, " --"+f.name+" "+value)
			if strings.HasPrefix(problem, f.key+" "+value) {
				problem = "--" + f.name + strings.TrimPrefix(problem, f.key)
			}
		}
	}
	return problem
}

// words is e with another name for its setting, in one line.
func words(name string, e *setting.Error) string {
	problem := strings.Map(oneLine, e.Problem)
	if e.Value != "" {
		return name + " " + shown(e.Value) + ": " + problem
	}
	for _, verb := range []string{"is ", "was ", "excludes ", "needs ", "belongs ", "has ", "goes "} {
		if strings.HasPrefix(problem, verb) {
			return name + " " + problem
		}
	}
	return name + ": " + problem
}

// maxShown is how much of a value is worth showing, in bytes.
const maxShown = 200

// shown is a value as a message can show it.
func shown(value string) string {
	if len(value) > maxShown {
		value = value[:maxShown] + "…"
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(value)
	}
	return value
}

func oneLine(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

// keyPaths are where the settings are in a file, by key: in its tunnel, or at the top. Those not named here are at the top of
// either.
func keyPaths() map[string]string {
	return map[string]string{
		"sandbox": "disable_landlock", "status": "status.listen", "pprof": "status.pprof", "shutdown": "status.shutdown",
		"metrics_prefix": "metrics.prefix", "metrics_graphite": "metrics.graphite", "metrics_url": "metrics.url", "metrics_interval": "metrics.interval",

		"workload_api": "identity.workload_api", "spiffe_id": "identity.spiffe_id", "hint": "identity.hint", "cert": "identity.cert", "key": "identity.key", "ca_cert": "identity.ca_cert",
		"keystore": "identity.keystore", "store_pass": "identity.store_pass_file", "none": "identity.none", "trust_bundle": "identity.trust_bundle",
		"pkcs11_module": "identity.pkcs11.module", "pkcs11_token_label": "identity.pkcs11.token_label", "pkcs11_pin": "identity.pkcs11.pin_file",
		"acme": "identity.acme", "auto_acme_cert": "identity.acme.name", "auto_acme_email": "identity.acme.email",
		"auto_acme_agree_to_tos": "identity.acme.agree_to_tos", "auto_acme_ca": "identity.acme.ca", "auto_acme_testca": "identity.acme.test_ca",

		"allow_all": "policy.allow_all", "own_trust_domain": "policy.own_trust_domain", "allow_uris": "policy.allow_uris",
		"allow_trust_domains": "policy.allow_trust_domains", "deny_uris": "policy.deny_uris", "allow_cns": "policy.allow_cns",
		"allow_ous": "policy.allow_ous", "allow_dns_names": "policy.allow_dns_names", "allow_ips": "policy.allow_ips", "pins": "policy.pins",
		"rego": "policy.rego", "query": "policy.query", "disable_authentication": "policy.disable_authentication",

		"connect_timeout": "timeouts.connect", "close_timeout": "timeouts.close", "idle_timeout": "timeouts.idle", "max_age": "timeouts.max_age",
		"connections": "limits.connections", "per_peer": "limits.per_peer", "handshakes": "limits.handshakes",
		"keep_alive": "tcp.keep_alive", "user_timeout": "tcp.user_timeout",
		"max_version": "tls.max_version", "cipher_suites": "tls.cipher_suites",
	}
}

// inFile adds the errors in err to the faults of f, each setting.Error at its line: that of the setting or, if it isn't there, of
// the block that lacks it.
func inFile(f *hclconf.File, err error) {
	for _, err := range setting.All(err) {
		e, ok := errors.AsType[*setting.Error](err)
		if !ok {
			f.Errorf(hclconf.Pos{}, "%v", err)
			continue
		}
		at, text := place(f, e)
		f.Errorf(at, "%s", text)
	}
}

// wordedInFile words the setting.Errors in err by f's name and line, one a line.
func wordedInFile(f *hclconf.File, err error) error {
	var out []error
	for _, err := range setting.All(err) {
		e, ok := errors.AsType[*setting.Error](err)
		if !ok {
			out = append(out, err)
			continue
		}
		at, text := place(f, e)
		name := f.Name()
		if at.Line > 0 {
			name = fmt.Sprintf("%s:%d", name, at.Line)
		}
		out = append(out, &worded{name + ": " + text, err})
	}
	return errors.Join(out...)
}

// place is where e's setting is in f, and what to say of it.
func place(f *hclconf.File, e *setting.Error) (hclconf.Pos, string) {
	path, ok := keyPaths()[e.Key]
	if !ok {
		path = e.Key
	}
	said := *e
	switch {
	case e.Tunnel != "" && e.Key == "tunnel":
		path, said.Value = tunnelPath(e.Tunnel), ""
	case e.Tunnel != "":
		path = tunnelPath(e.Tunnel) + ": " + path
	}
	if e.Key == "workload_api" && !f.Has(path) && f.Has(e.Key) { // the default of all tunnels
		path = e.Key
	}
	return nearest(f, path), words(path, &said)
}

// without gives the errors in err but for those about a setting that told has one about.
func without(err, told error) error {
	type about struct{ tunnel, key string }
	known := map[about]bool{}
	for _, err := range setting.All(told) {
		if e, ok := errors.AsType[*setting.Error](err); ok {
			known[about{e.Tunnel, e.Key}] = true
		}
	}
	var out []error
	for _, err := range setting.All(err) {
		if e, ok := errors.AsType[*setting.Error](err); !ok || !known[about{e.Tunnel, e.Key}] {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// nearest is the place of the key with the path, or of the innermost block that would hold it.
func nearest(f *hclconf.File, path string) hclconf.Pos {
	for at := path; at != ""; {
		if f.Has(at) {
			return f.At(at)
		}
		i := strings.LastIndexAny(at, ".:")
		if strings.HasSuffix(at, `"`) {
			i = strings.LastIndex(at, ` "`)
		}
		if i < 0 {
			break
		}
		at = at[:i]
	}
	return hclconf.Pos{}
}
