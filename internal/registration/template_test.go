package registration_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/registration"
)

var testTD = spiffeid.RequireTrustDomainFromString("lanyard.test")

func selectors(t *testing.T, texts ...string) []registration.Selector {
	t.Helper()
	var all []registration.Selector
	for _, text := range texts {
		s, err := registration.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestParseTemplate(t *testing.T) {
	for path, prefix := range map[string]string{
		"/docker/{{docker:label:app}}":                     "/docker",
		"/u/{{unix:user}}":                                 "/u",
		"/ns/a/{{k8s:ns}}/sa/{{k8s:sa}}":                   "/ns/a",
		"/x/{{k8s:pod-label:app.kubernetes.io/name}}/deep": "/x",
	} {
		got, err := registration.ParseTemplate(testTD, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got.Prefix() != prefix || got.Path() != path || got.String() != "spiffe://lanyard.test"+path {
			t.Errorf("%s: prefix %q, path %q, %s", path, got.Prefix(), got.Path(), got)
		}
	}
	for _, path := range []string{
		"", "/", "/plain/id", "{{unix:user}}", "/{{unix:user}}", "/{{unix:user}}/x", "u/{{unix:user}}",
		"/u/{{unix:user", "/u/{{unix:user}}x", "/u/x{{unix:user}}", "/u/{{unix:user}}/", "/u//{{unix:user}}",
		"/u/../{{unix:user}}", "/u/{{unix}}", "/u/{{unix:}}", "/u/{{:user}}", "/u/{{}}", "/u/{{unix:user:}}",
		"/u/{{unix:us er}}", "/u/{{{unix:user}}}", "/u/{{unix:user}}/{x}", "/ü/{{unix:user}}",
		"/u/{{unix:" + strings.Repeat("x", 2048) + "}}", "/u" + strings.Repeat("/{{unix:user}}", 17),
	} {
		if got, err := registration.ParseTemplate(testTD, path); err == nil {
			t.Errorf("%q parsed as %s", path, got)
		}
	}
}

// Whoever can choose a label chooses one segment, and nothing above or below it.
func TestTemplatePathsStayBelowTheirPrefix(t *testing.T) {
	tmpl, err := registration.ParseTemplate(testTD, "/docker/{{docker:label:app}}/{{unix:user}}")
	if err != nil {
		t.Fatal(err)
	}
	id, err := tmpl.Instance(selectors(t, "unix:uid:7", "docker:label:app:web", "unix:user:bob", "docker:label:app:web"))
	if err != nil || id.String() != "spiffe://lanyard.test/docker/web/bob" {
		t.Fatalf("%s, %v", id, err)
	}
	for _, app := range []string{"a/b", "..", ".", "a/../../admin", "/a", "a/", "a b", "a%2fb", "ä", "{{unix:user}}", "a:b", strings.Repeat("x", 2048)} {
		if id, err := tmpl.Instance(selectors(t, "docker:label:app:"+app, "unix:user:bob")); err == nil {
			t.Errorf("a label %.80q makes %s", app, id)
		}
		if id, err := tmpl.InstanceAt("/docker/" + app + "/bob"); err == nil {
			t.Errorf("%.80q in a path makes %s", app, id)
		}
	}
	for name, has := range map[string][]registration.Selector{
		"missing":        selectors(t, "unix:user:bob"),
		"other type":     selectors(t, "unix:user:bob", "podman:label:app:web"),
		"empty":          {{Type: "unix", Value: "user:bob"}, {Type: "docker", Value: "label:app:"}},
		"ambiguous":      selectors(t, "unix:user:bob", "docker:label:app:web", "docker:label:app:db"),
		"one no segment": selectors(t, "unix:user:bob", "docker:label:app:web", "docker:label:app:x:y"),
	} {
		if id, err := tmpl.Instance(has); err == nil {
			t.Errorf("%s: %s", name, id)
		}
	}
	for _, path := range []string{"", "/", "/docker", "/docker/web", "/docker/web/bob/x", "/dockerx/web/bob", "/docker//bob", "docker/web/bob", "/docker/web/bob/"} {
		if id, err := tmpl.InstanceAt(path); err == nil {
			t.Errorf("%q is taken for instance %s", path, id)
		}
	}
	if id, err := tmpl.InstanceAt("/docker/web/bob"); err != nil || id.Path() != "/docker/web/bob" {
		t.Errorf("%s, %v", id, err)
	}
}

func TestSameHoleTwiceHasOneValue(t *testing.T) {
	tmpl, err := registration.ParseTemplate(testTD, "/u/{{unix:user}}/home/{{unix:user}}")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := tmpl.InstanceAt("/u/bob/home/eve"); err == nil {
		t.Errorf("made %s", id)
	}
	if _, err := tmpl.InstanceAt("/u/bob/home/bob"); err != nil {
		t.Error(err)
	}
}

func TestTemplatesReserve(t *testing.T) {
	tmpl := func(path string) registration.Entry {
		got, err := registration.ParseTemplate(testTD, path)
		if err != nil {
			t.Fatal(err)
		}
		return registration.Entry{Template: got}
	}
	plain := func(path string) registration.Entry {
		return registration.Entry{SPIFFEID: spiffeid.RequireFromPath(testTD, path)}
	}
	for _, c := range []struct {
		a, b registration.Entry
		want bool
	}{
		{tmpl("/a/b/{{unix:user}}"), plain("/a/b/x"), true},
		{tmpl("/a/b/{{unix:user}}"), plain("/a/b"), true},
		{tmpl("/a/b/{{unix:user}}"), plain("/a/b/x/y/z"), true},
		{tmpl("/a/b/{{unix:user}}"), plain("/a/bc"), false},
		{tmpl("/a/b/{{unix:user}}"), plain("/a"), false},
		{tmpl("/a/b/{{unix:user}}"), tmpl("/a/b/{{unix:user}}"), false},
		{tmpl("/a/b/{{unix:user}}"), tmpl("/a/b/{{unix:group}}"), true},
		{tmpl("/a/b/{{unix:user}}"), tmpl("/a/{{unix:user}}"), true},
		{tmpl("/a/b/{{unix:user}}"), tmpl("/a/b/c/{{unix:user}}"), true},
		{tmpl("/a/b/{{unix:user}}"), tmpl("/a/c/{{unix:user}}"), false},
		{plain("/a"), plain("/a"), false},
	} {
		if c.a.Clash(c.b) != c.want || c.b.Clash(c.a) != c.want {
			t.Errorf("%s and %s: clash %v and %v, want %v", c.a.Name(), c.b.Name(), c.a.Clash(c.b), c.b.Clash(c.a), c.want)
		}
	}
}

func TestTemplateEntryOverTheWire(t *testing.T) {
	tmpl, err := registration.ParseTemplate(testTD, "/docker/{{docker:label:app}}")
	if err != nil {
		t.Fatal(err)
	}
	e := registration.Entry{
		ID: "t", Template: tmpl, ParentID: spiffeid.RequireFromPath(testTD, "/node"),
		Selectors: selectors(t, "docker:image_id:x"),
	}
	if err := e.Validate(testTD); err != nil {
		t.Error(err)
	}
	back, err := registration.FromProto(e.Proto())
	if err != nil || back.Template != tmpl || !back.SPIFFEID.IsZero() || back.Key() != e.Key() {
		t.Errorf("%+v, %v", back, err)
	}
	for name, change := range map[string]func(*registration.Entry){
		"admin":      func(e *registration.Entry) { e.Admin = true },
		"downstream": func(e *registration.Entry) { e.Downstream = true },
		"store_svid": func(e *registration.Entry) { e.StoreSVID = true },
		"dns_names":  func(e *registration.Entry) { e.DNSNames = []string{"a.test"} },
		"both":       func(e *registration.Entry) { e.SPIFFEID = spiffeid.RequireFromPath(testTD, "/x") },
		"foreign": func(e *registration.Entry) {
			e.Template, _ = registration.ParseTemplate(spiffeid.RequireTrustDomainFromString("other.test"), "/a/{{unix:user}}")
		},
		"reserved": func(e *registration.Entry) {
			e.Template, _ = registration.ParseTemplate(testTD, "/spire/agent/{{unix:user}}")
		},
	} {
		bad := e
		change(&bad)
		if bad.Validate(testTD) == nil {
			t.Errorf("an entry with a template and %s is valid", name)
		}
	}
}

// No template that parses and no selectors lead out of the template's prefix,
// and every instance is known again by its path.
func FuzzTemplate(f *testing.F) {
	f.Add("/docker/{{docker:label:app}}", "label:app:web", "/docker/web")
	f.Add("/u/{{docker:user}}/x", "user:..", "/u/../x")
	f.Add("/u/{{docker:a/b}}/{{docker:user}}", "user:a/b", "/u/{{docker:user}}")
	f.Add("/u/{{docker:user", "", "")
	f.Fuzz(func(t *testing.T, pattern, value, path string) {
		tmpl, err := registration.ParseTemplate(testTD, pattern)
		if err != nil {
			return
		}
		check := func(id spiffeid.ID, err error) {
			if err != nil {
				return
			}
			if !strings.HasPrefix(id.Path(), tmpl.Prefix()+"/") || !tmpl.Covers(id) {
				t.Errorf("%s made %s", tmpl, id)
			}
			if strings.Count(id.Path(), "/") > strings.Count(pattern, "/") {
				t.Errorf("%s made %s, which is deeper", tmpl, id)
			}
			if _, err := spiffeid.FromString(id.String()); err != nil {
				t.Error(err)
			}
			if again, err := tmpl.InstanceAt(id.Path()); err != nil || again != id {
				t.Errorf("%s made %s, and knows it as %s, %v", tmpl, id, again, err)
			}
		}
		check(tmpl.Instance([]registration.Selector{{Type: "docker", Value: value}}))
		check(tmpl.InstanceAt(path))
	})
}
