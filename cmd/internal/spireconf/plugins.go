package spireconf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-mtls/lanyard/internal/cli/suggest"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
)

// PluginBlock is one block of plugins {}.
type PluginBlock struct {
	Name     string `hcl:"name,label"`
	At       hclconf.Pos
	Data     *hclconf.Body `hcl:"plugin_data,block"`
	DataFile string        `hcl:"plugin_data_file,optional"`
	Enabled  *bool         `hcl:"enabled,optional"`
	Cmd      string        `hcl:"plugin_cmd,optional"`
	Args     []string      `hcl:"plugin_args,optional"`
	Checksum string        `hcl:"plugin_checksum,optional"`
}

// Off says that the block is there to switch the plugin off.
func (b PluginBlock) Off() bool { return b.Enabled != nil && !*b.Enabled }

// PluginKind is a type of plugins: its blocks, those that are built in, and those that only SPIRE has.
type PluginKind struct {
	Name   string
	Blocks []PluginBlock
	// SPIRE are the names of SPIRE's that are refused, separated by spaces.
	SPIRE string
	// Built takes what is built in, by name.
	Built map[string]func(*Plugin)
	// Single says that only one of the type works at a time.
	Single bool
	// Instead is what to do where one is refused; "" is to remove it.
	Instead string
}

// Plugin is one block that is taken, and where its data stand.
type Plugin struct {
	PluginBlock
	kind string
	file *hclconf.File // that the block is in
	data *hclconf.File // that the data are in; nil before they are read
	path string        // of the data in it
}

// ReadPlugins takes every block that is enabled. Its faults are kept in the file.
func ReadPlugins(conf *hclconf.File, kinds ...PluginKind) {
	for _, kind := range kinds {
		var first string
		seen := map[string]bool{}
		for _, block := range kind.Blocks {
			title := fmt.Sprintf("plugins.%s %q", kind.Name, block.Name)
			take := kind.Built[block.Name]
			switch {
			case seen[block.Name]:
				conf.Errorf(block.At, "%s is given twice", title)
			case block.Off():
			case block.Cmd != "":
				conf.Errorf(block.At, "%s: plugin_cmd: programs of others can't be plugged in, only what is built in works; %s", title, kind.advice())
			case take == nil:
				conf.Errorf(block.At, "%s: %s", title, kind.refusal(block.Name))
			case kind.Single && first != "":
				conf.Errorf(block.At, "%s: there is %q already, and only one works at a time: remove one", title, first)
			default:
				first = block.Name
				take(&Plugin{PluginBlock: block, kind: kind.Name, file: conf})
			}
			seen[block.Name] = true
		}
	}
}

func (k PluginKind) advice() string {
	if k.Instead != "" {
		return k.Instead
	}
	return "remove it"
}

func (k PluginKind) refusal(name string) string {
	var built []string
	for b := range k.Built {
		built = append(built, b)
	}
	slices.Sort(built)
	switch {
	case slices.Contains(strings.Fields(k.SPIRE), name) && len(built) > 0:
		return fmt.Sprintf("known to SPIRE, not supported yet; supported: %s; %s", strings.Join(built, ", "), k.advice())
	case slices.Contains(strings.Fields(k.SPIRE), name):
		return "known to SPIRE, not supported yet; " + k.advice()
	}
	if near := suggest.Closest(name, built); near != "" {
		return fmt.Sprintf("unknown; did you mean %q?", near)
	}
	if len(built) == 0 {
		return "unknown; remove it"
	}
	return "unknown; supported: " + strings.Join(built, ", ")
}

// Decode reads what p is configured with, in place or in a file of its own, and tells whether that went well.
func (p *Plugin) Decode(target any) bool {
	p.data, p.path = p.file, fmt.Sprintf("plugins.%s.%s.plugin_data", p.kind, p.Name)
	if p.DataFile == "" {
		before := p.file.Faults()
		p.file.DecodeBody(p.Data, target)
		return p.file.Faults() == before
	}
	if p.Data != nil {
		p.file.Errorf(p.At, "plugins.%s %q has both plugin_data and plugin_data_file: remove one", p.kind, p.Name)
		return false
	}
	other, err := hclconf.Read(p.DataFile, nil)
	if err != nil {
		p.file.Errorf(p.At, "plugins.%s %q: plugin_data_file: %v", p.kind, p.Name, err)
		return false
	}
	other.Decode(target)
	p.data, p.path = other, ""
	if other.Err() != nil {
		p.file.Include(other)
		return false
	}
	return true
}

// Has says whether the data, which were read, set a key.
func (p *Plugin) Has(key string) bool { return p.data.Has(strings.Trim(p.path+"."+key, ".")) }

// Errorf adds a fault of one setting of the data, which were read; of the block itself, if key is "". What is said of a key
// follows it after a colon, but for "is missing".
func (p *Plugin) Errorf(key, format string, args ...any) {
	at, text := p.locate(key, fmt.Sprintf(format, args...))
	if p.data == p.file {
		p.file.Errorf(at, "%s", text)
		return
	}
	one := p.data.Sibling()
	one.Errorf(at, "%s", text)
	p.file.Include(one)
}

// Wrong adds the faults of err, a line each and each once, at the setting that the line begins with.
func (p *Plugin) Wrong(err error) {
	if err == nil {
		return
	}
	told := map[string]bool{}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if told[line] {
			continue
		}
		told[line] = true
		if key, rest, _ := strings.Cut(line, " "); p.Has(strings.TrimSuffix(key, ":")) {
			p.Errorf(strings.TrimSuffix(key, ":"), "%s", rest)
			continue
		}
		p.Errorf("", "%s", line)
	}
}

// Notef adds something to say about a setting of the data that is no fault.
func (p *Plugin) Notef(key, format string, args ...any) {
	at, text := p.locate(key, fmt.Sprintf(format, args...))
	if p.data != p.file {
		at, text = p.At, fmt.Sprintf("%s: %s", p.data.Name(), text)
	}
	p.file.Notef(at, "%s", text)
}

// locate puts the key before what is said of it, and finds where it stands.
func (p *Plugin) locate(key, text string) (hclconf.Pos, string) {
	path, at := p.path+"."+key, p.data.At(p.path+"."+key)
	if p.path == "" {
		path, at = key, p.data.At(key)
	}
	if at == (hclconf.Pos{}) && p.data == p.file {
		at = p.At
	}
	switch path = strings.Trim(path, "."); {
	case strings.HasPrefix(text, "is "):
		text = path + " " + text
	case path != "":
		text = path + ": " + text
	}
	return at, text
}
