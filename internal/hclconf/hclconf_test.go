package hclconf

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

type conf struct {
	Server  *server  `hcl:"server,block"`
	Plugins *plugins `hcl:"plugins,block"`
	_       NotYet   `names:"telemetry"`
}

type server struct {
	TrustDomain spiffeid.TrustDomain `hcl:"trust_domain,optional"`
	AdminIDs    []spiffeid.ID        `hcl:"admin_ids,optional"`
	BindAddress string               `hcl:"bind_address,optional"`
	BindPort    *int                 `hcl:"bind_port,optional"`
	CATTL       time.Duration        `hcl:"ca_ttl,optional"`
	Audit       bool                 `hcl:"audit,optional"`
	Subject     *subject             `hcl:"ca_subject,block"`
	_           NotYet               `names:"ca_key_type jwt_key_type"`
	_           NotYet               `names:"federation" instead:"use bundles"`
}

type subject struct {
	Country []string `hcl:"country,optional"`
	Name    string   `hcl:"common_name"`
}

type plugins struct {
	KeyManager []plugin `hcl:"KeyManager,block"`
	_          NotYet   `names:"DataStore" instead:"entries are kept in data_dir"`
}

type plugin struct {
	Name string `hcl:"name,label"`
	At   Pos
	Data *Body `hcl:"plugin_data,block"`
}

type diskData struct {
	KeysPath string `hcl:"keys_path,optional"`
}

func TestDecodeReadsWhatSPIREsOperatorsWrite(t *testing.T) {
	const src = `
server {
    trust_domain = "example.org"   # comments of both kinds
    admin_ids = ["spiffe://example.org/ops", "spiffe://other.test/ops"]
    bind_port = "8081" // a number in quotes
    bind_address = "0.0.0.0"
    ca_ttl = "24h"
    audit = "true"
    ca_subject = { country = ["US"], common_name = "x" }
}
plugins {
    KeyManager "disk" {
        plugin_data { keys_path = "/k" }
    }
    KeyManager "memory" {
        plugin_data = {}
    }
}
`
	var got conf
	f := Parse("c.hcl", []byte(src))
	f.Decode(&got)
	var data diskData
	f.DecodeBody(got.Plugins.KeyManager[0].Data, &data)
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	port := 8081
	want := server{
		TrustDomain: spiffeid.RequireTrustDomainFromString("example.org"),
		AdminIDs:    []spiffeid.ID{spiffeid.RequireFromString("spiffe://example.org/ops"), spiffeid.RequireFromString("spiffe://other.test/ops")},
		BindPort:    &port, BindAddress: "0.0.0.0", CATTL: 24 * time.Hour, Audit: true,
		Subject: &subject{Country: []string{"US"}, Name: "x"},
	}
	same := cmp.Options{cmp.Comparer(func(a, b spiffeid.ID) bool { return a == b }), cmp.Comparer(func(a, b spiffeid.TrustDomain) bool { return a == b })}
	if diff := cmp.Diff(want, *got.Server, same); diff != "" {
		t.Error(diff)
	}
	if data.KeysPath != "/k" || got.Plugins.KeyManager[1].Name != "memory" || got.Plugins.KeyManager[0].At.Line != 12 {
		t.Errorf("plugins: %+v, data %+v", got.Plugins.KeyManager, data)
	}
	if f.At("server.bind_port").Line != 5 || f.Has("server.data_dir") {
		t.Errorf("server.bind_port at %v, server.data_dir there: %v", f.At("server.bind_port"), f.Has("server.data_dir"))
	}
}

func TestDecodeNamesEveryFault(t *testing.T) {
	for _, tc := range []struct{ name, src, want string }{
		{"near key", "server {\n trust_domian = \"x\"\n}", `c.hcl:2: unknown key "trust_domian" in server; did you mean "trust_domain"?`},
		{"unlike any key", "server {\n zzz = 1\n}", `c.hcl:2: unknown key "zzz" in server; accepted: admin_ids, audit, bind_address, bind_port, ca_subject, ca_ttl, trust_domain`},
		{"block at the top", "servr {\n}", `c.hcl:1: unknown block "servr" in the file; did you mean "server"?`},
		{"not yet", "server {\n ca_key_type = \"rsa-2048\"\n}", `c.hcl:2: server.ca_key_type: known to SPIRE, not supported yet; remove it`},
		{"not yet, with advice", "plugins {\n DataStore \"sql\" {}\n}", `c.hcl:2: plugins.DataStore "sql": known to SPIRE, not supported yet; entries are kept in data_dir; remove it`},
		{"wrong type", "server {\n bind_port = \"http\"\n}", `c.hcl:2: server.bind_port: want a whole number, got "http"`},
		{"fraction", "server {\n bind_port = 1.5\n}", `c.hcl:2: server.bind_port: want a whole number, this one is a fraction or too large`},
		{"list for text", "server {\n bind_address = [\"a\"]\n}", `c.hcl:2: server.bind_address: want text in quotes, got a list`},
		{"text for list", "server {\n admin_ids = \"spiffe://a/b\"\n}", `c.hcl:2: server.admin_ids: want a list, ["…", "…"], got text`},
		{"bool", "server {\n audit = 1\n}", `c.hcl:2: server.audit: want true or false, got a number`},
		{"duration", "server {\n ca_ttl = \"5\"\n}", `c.hcl:2: server.ca_ttl: "5" is no duration: write it with a unit, like "90s", "10m" or "24h"`},
		{"negative duration", "server {\n ca_ttl = \"-5s\"\n}", `c.hcl:2: server.ca_ttl: "-5s" is negative`},
		{"trust domain", "server {\n trust_domain = \"Example Org\"\n}", `c.hcl:2: server.trust_domain: "Example Org": trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`},
		{"variable", "server {\n trust_domain = \"$TD\"\n}", `c.hcl:2: server.trust_domain: "$TD": environment variables are filled in with -expandEnv only`},
		{"empty trust domain", "server {\n trust_domain = \"\"\n}", `c.hcl:2: server.trust_domain: is empty: set it, or remove the line`},
		{"SPIFFE ID in a list", "server {\n admin_ids = [\"spiffe://a/b\",\n \"a/b\"]\n}", `c.hcl:2: server.admin_ids: item 2: "a/b": scheme is missing or invalid`},
		{"bare word", "server {\n bind_address = localhost\n}", `c.hcl:2: server.bind_address: the value needs quotes: "localhost"`},
		{"template", "server {\n bind_address = \"${HOST}\"\n}", `c.hcl:2: server.bind_address: ${…} is not evaluated: start with -expandEnv to fill in environment variables, or write $${ for a plain ${`},
		{"expression", "server {\n bind_port = 1 + 1\n}", `c.hcl:2: server.bind_port: want a plain value, not an expression`},
		{"block for value", "server {\n bind_port {}\n}", `c.hcl:2: server.bind_port is a value, not a block: write bind_port = …`},
		{"value for block", "server = 1\n", `c.hcl:1: server is a block, not a value: write server { … }`},
		{"twice", "server {}\nserver {}", `c.hcl:2: server is given twice, first in line 1`},
		{"missing", "server {\n ca_subject {}\n}", `c.hcl:2: server.ca_subject.common_name is missing`},
		{"label", "plugins {\n KeyManager {}\n}", `c.hcl:2: plugins.KeyManager has 0 names in quotes before its {, want 1`},
		{"syntax", "server {\n bind_port = = 1\n}", `c.hcl:2: invalid expression: expected the start of an expression, but found an invalid expression token`},
		{"JSON", "{\"server\": {\n\"bind_port\": \"http\",\n\"trust_domian\": 1}}", "c.hcl:2: server.bind_port: want a whole number, got \"http\"\nc.hcl:3: unknown key \"trust_domian\" in server; did you mean \"trust_domain\"?"},
		{"broken JSON", "{\"server\": {\n\"bind_port\": 1,\n}}", `c.hcl:2: not JSON: invalid character '}' looking for beginning of object key string`},
		{"JSON too short", "{\"server\": {", `c.hcl:1: the JSON ends too early`},
		{"two JSON values", "{}\n{}", `c.hcl:2: want one JSON object, and nothing after it`},
		{"deep JSON", "{\"a\":" + strings.Repeat("[", 100), `c.hcl:1: not JSON: more than 64 brackets are open here`},
		{"a value in the place of a name", "plugins {\n KeyManager {\n  keys_path = 1\n }\n}", `c.hcl:2: plugins.KeyManager has 0 names in quotes before its {, want 1`},
		{"deep", strings.Repeat("[", 100), `c.hcl:1: more than 64 brackets are open here`},
		{"big", strings.Repeat("#", maxSize+1), `c.hcl: the file has more than 256 KiB: this is no configuration file`},
		{"all at once", "server {\n a1b2 = 1\n bind_port = true\n}\ntelemetry {}", "c.hcl:2: unknown key \"a1b2\" in server; accepted: admin_ids, audit, bind_address, bind_port, ca_subject, ca_ttl, trust_domain\n" +
			"c.hcl:3: server.bind_port: want a whole number, got true or false\nc.hcl:5: telemetry: known to SPIRE, not supported yet; remove it"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c conf
			err := Decode("c.hcl", []byte(tc.src), &c)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The shapes that SPIRE's first HCL takes for one another; the JSON ones are those of its Kubernetes charts.
func TestDecodeReadsEveryShapeOfABlock(t *testing.T) {
	for name, src := range map[string]string{
		"block":            `server { bind_port = 1 }` + "\n" + `plugins { KeyManager "disk" { plugin_data { keys_path = "/k" } } }`,
		"names inside":     `server { bind_port = 1 }` + "\n" + `plugins { KeyManager { disk { plugin_data { keys_path = "/k" } } } }`,
		"objects":          `server = { bind_port = 1 }` + "\n" + `plugins = { KeyManager = { disk = { plugin_data = { keys_path = "/k" } } } }`,
		"HCL 1":            `"server"` + "\n" + `{ "bind_port" = 1, } plugins { "KeyManager" "disk" ` + "\n" + `{ plugin_data = { keys_path = "/k" } } } # end`,
		"capital letters":  `Server { Bind_Port = 1 }` + "\n" + `plugins { keymanager "disk" { plugin_data { KEYS_PATH = "/k" } } }`,
		"JSON":             `{"server": {"bind_port": 1}, "plugins": {"KeyManager": {"disk": {"plugin_data": {"keys_path": "/k"}}}}}`,
		"JSON with lists":  `{"server": [{"bind_port": "1"}], "plugins": [{"KeyManager": [{"disk": [{"plugin_data": [{"keys_path": "/k"}]}]}]}]}`,
		"JSON with a null": `{"server": {"bind_port": 1, "ca_ttl": null}, "plugins": {"KeyManager": {"disk": {"plugin_data": {"keys_path": "/k"}}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			var got conf
			f := Parse("c.conf", []byte(src))
			f.Decode(&got)
			if err := f.Err(); err != nil {
				t.Fatal(err)
			}
			var data diskData
			if len(got.Plugins.KeyManager) == 1 {
				f.DecodeBody(got.Plugins.KeyManager[0].Data, &data)
			}
			if *got.Server.BindPort != 1 || got.Plugins.KeyManager[0].Name != "disk" || data.KeysPath != "/k" || !f.Has("plugins.KeyManager.disk.plugin_data.keys_path") {
				t.Errorf("%+v, %+v, %+v", got.Server, got.Plugins, data)
			}
		})
	}
}

func TestNotesAreNoFaults(t *testing.T) {
	f := Parse("a.conf", []byte("server {\n ca_ttl = \"1h\"\n}"))
	f.Decode(&conf{})
	f.Notef(f.At("server.ca_ttl"), "short")
	f.Notef(Pos{}, "%d keys", 1)
	if diff := cmp.Diff([]string{"a.conf: 1 keys", "a.conf:2: short"}, f.Notes()); diff != "" || f.Err() != nil {
		t.Errorf("%v, %s", f.Err(), diff)
	}
}

func TestIncludeAddsTheFaultsOfAnotherFile(t *testing.T) {
	main, other := Parse("a.conf", []byte("server {\n x1 = 1\n}")), Parse("b.conf", []byte("keys = 1"))
	main.Decode(&conf{})
	other.Decode(&diskData{})
	main.Include(other)
	main.Include(Parse("c.conf", nil))
	want := `a.conf:2: unknown key "x1" in server; accepted: admin_ids, audit, bind_address, bind_port, ca_subject, ca_ttl, trust_domain
b.conf:1: unknown key "keys" in the file; did you mean "keys_path"?`
	if diff := cmp.Diff(want, main.Err().Error()); diff != "" {
		t.Error(diff)
	}
}

func TestErrStopsAtTwentyFaults(t *testing.T) {
	err := Decode("c.hcl", []byte("server {\n"+strings.Repeat("ca_key_type {}\n", 25)+"}"), &conf{})
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || lines[20] != "c.hcl: and 5 more" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("server {\n trust_domain = \"example.org\"\n bind_port = \"8081\"\n ca_ttl = \"1h\"\n}\n"))
	f.Add([]byte("plugins {\n KeyManager \"disk\" {\n plugin_data { keys_path = \"x\" }\n }\n}"))
	f.Add([]byte("server = { ca_subject = { country = [\"a\", 1e999999999] } }"))
	f.Add([]byte("server { bind_address = -\"x\" }"))
	f.Add([]byte("server { bind_address = <<E\n a ${ b } \nE\n}"))
	f.Add([]byte("server { bind_port = !!!!!--1 ? [for x in y: x] : {} }"))
	f.Add([]byte("\"server\"\n{ \"bind_port\" = 1, } plugins { \"KeyManager\" \"disk\" { plugin_data = [{ keys_path = <<E\n a\nE\n }, { x = [1, -2] }] } }"))
	f.Add([]byte(`{"server": [{"bind_port": "1"}], "plugins": [{"KeyManager": [{"disk": [{"plugin_data": [{"keys_path": "/k"}]}]}]}]}`))
	f.Add([]byte("{\"a\": 1e999999999, \"b\": [null, {}, \"\\ud800\"]}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		var c conf
		file := Parse("f", src)
		file.Decode(&c)
		if c.Plugins != nil {
			for _, p := range c.Plugins.KeyManager {
				file.DecodeBody(p.Data, &diskData{})
			}
		}
		if err := file.Err(); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f:") {
					t.Fatalf("a fault without its place: %q", line)
				}
			}
		}
	})
}

type tunnels struct {
	Tunnel []tunnel `hcl:"tunnel,block"`
}

type tunnel struct {
	Name    string `hcl:"name,label,quoted"`
	At      Pos
	Listen  string   `hcl:"listen"`
	Bundles []bundle `hcl:"trust_bundle,block"`
}

type bundle struct {
	Domain string `hcl:"domain,label,quoted"`
	File   string `hcl:"file,optional"`
}

func TestLabelsAreQuotedInPathsThatWantIt(t *testing.T) {
	const src = `
tunnel "a" {
  listen = "x"
  trust_bundle "example.org" { file = 1.5 }
}
tunnel "b.c" {
  trust_bundle "example.org" { file = "y" }
  lisen = 1
}
tunnel {}
`
	f := Parse("f", []byte(src))
	var got tunnels
	f.Decode(&got)
	want := `f:4: tunnel "a": trust_bundle "example.org": file: want text in quotes, got a number
f:6: tunnel "b.c": listen is missing
f:8: unknown key "lisen" in tunnel "b.c"; did you mean "listen"?
f:10: tunnel has 0 names in quotes before its {, want 1`
	if diff := cmp.Diff(want, f.Err().Error()); diff != "" {
		t.Error(diff)
	}
	if at := f.At(`tunnel "b.c": trust_bundle "example.org": file`); at.Line != 7 || got.Tunnel[1].At.Line != 6 {
		t.Errorf("%v, %v", at, got.Tunnel[1].At)
	}
}
