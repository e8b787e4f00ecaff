package agentpath_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/issuer/enroll/agentpath"
)

var td = spiffeid.RequireTrustDomainFromString("lanyard.test")

func TestTemplates(t *testing.T) {
	data := map[string]any{"Name": "Web 1", "Tags": map[string]string{"rack": "r7"}}
	for text, want := range map[string]string{
		`/m/{{ .Name | nospace | lower }}`:             "/m/web1",
		`/m/{{ .Tags.rack | trimPrefix "r" }}`:         "/m/7",
		`/m/{{ index (splitList " " .Name) 1 }}`:       "/m/1",
		`/m/{{ .Name | sha256sum | trunc 8 }}`:         "/m/",
		`/m/{{ regexReplaceAll "[^0-9]" .Name "" }}`:   "/m/1",
		`/m/{{ default "none" (get .Tags "rack") }}`:   "",
		`{{ if eq .Tags.rack "r7" }}/m/seven{{ end }}`: "/m/seven",
	} {
		tmpl, err := agentpath.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		id, err := tmpl.AgentID(td, data)
		if want != "" && (err != nil || !strings.HasPrefix(id.Path(), "/spire/agent"+want)) {
			t.Errorf("%s: %s, %v", text, id, err)
		}
	}
}

// A template reads nothing of the machine, and what is missing is no path.
func TestTemplatesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`/{{ env "HOME" }}`:     `function "env" not defined`,
		`/{{ expandenv "$A" }}`: `function "expandenv" not defined`,
		`/{{ now }}`:            `function "now" not defined`,
		`/{{ snakecase "a" }}`:  `known to SPIRE, not supported yet`,
		`/{{ .Name `:            "agent_path_template",
	} {
		if _, err := agentpath.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"/m/{{ .None }}", "m", "", "/m//x", "/m/", "/m/{{ fail \"no\" }}"} {
		tmpl, err := agentpath.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := tmpl.AgentID(td, map[string]string{}); err == nil {
			t.Errorf("%q made %s", text, id)
		}
	}
}
