package agentcmd

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-mtls/lanyard/cmd/internal/spireconf"
	"github.com/lanyard-mtls/lanyard/configs"
	"github.com/lanyard-mtls/lanyard/internal/testca"
)

// unsaid are keys that the sample does not show: what does nothing, or is refused.
var unsaid = strings.Fields(`use_new_container_locator verbose_container_locator_logs profiling_freq profiling_names plugin_data_file plugin_cmd plugin_args
	plugin_checksum SVIDStore DogStatsd Statsd M3 InMem address env cert_file key_file client_ca_file`)

// keys are the names of all settings of a struct of the file.
func keys(t reflect.Type) (all []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		tag, ok := t.Field(i).Tag.Lookup("hcl")
		if name, rest, _ := strings.Cut(tag, ","); ok && !strings.Contains(rest, "label") {
			all = append(append(all, name), keys(t.Field(i).Type)...)
		}
	}
	return all
}

func TestSampleShowsEachSetting(t *testing.T) {
	all := keys(reflect.TypeFor[file]())
	for _, data := range []any{diskData{}, x509popData{}, k8sPSATData{}, joinKeyData{}, unixData{}, dockerData{}, k8sData{}, spireconf.PluginBlock{}} {
		all = append(all, keys(reflect.TypeOf(data))...)
	}
	if len(all) < 110 {
		t.Fatalf("%d settings: are they found otherwise now?", len(all))
	}
	skip := map[string]bool{}
	for _, key := range unsaid {
		skip[key] = true
	}
	for _, key := range all {
		if !skip[key] && !regexp.MustCompile(`(?m)^[ #]*`+key+`( "[^"]*")? +[={]|`+key+` = `).MatchString(configs.Agent) {
			t.Errorf("configs/agent.hcl doesn't show %s", key)
		}
	}
}

// block is one that the sample shows as a comment.
var block = regexp.MustCompile(`(?m)^( *)# ((\w+)(?: "\w+")? \{)\n((?: *#  .*\n)*) *# \}\n`)

// What the sample shows as a comment, or as a plugin that is off, works when it is taken in.
func TestSamplesBlocksWork(t *testing.T) {
	t.Chdir(t.TempDir())
	bundle, err := testca.New(t, "example.org").Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"bundle.pem": string(bundle), "token": "b5c5bb8c-0e2b-4b2a-9a9a-0d8a0f3a2f10"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wrap := map[string]string{
		"socket":       "agent {\n%s%s}\n",
		"NodeAttestor": "agent {\n%s}\nplugins {\n%s}\n",
		"tls":          "agent {\n%s}\ntelemetry {\nPrometheus {\n%s}\n}\n",
	}
	const agent = "trust_domain = \"example.org\"\nserver_address = \"localhost\"\ntrust_bundle_path = \"bundle.pem\"\n"
	found := block.FindAllStringSubmatch(configs.Agent, -1)
	if len(found) != 5 {
		t.Errorf("%d blocks, want 5", len(found))
	}
	for _, f := range found {
		text := f[2] + "\n" + strings.ReplaceAll(strings.ReplaceAll(f[4], "www-data", "root"), "#", "") + "}\n"
		if _, err := settingsOf(t, fmt.Sprintf(wrap[f[3]], agent, text)); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
	on := strings.ReplaceAll(configs.Agent, "enabled = false\n", "enabled = true\n")
	s, err := settingsOf(t, on)
	if err != nil || len(s.attestors) != 3 {
		t.Errorf("%v, %d workload attestors besides unix", err, len(s.attestors))
	}
}
