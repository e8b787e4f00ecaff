package sidecarcmd

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// group is a heading of the help.
type group string

// The groups, in the order of the help.
const (
	groupTunnel   group = "Where"
	groupIdentity group = "Identity, exactly one source"
	groupPeers    group = "Which peers"
	groupTimes    group = "Times and limits"
	groupWatch    group = "Health, metrics and logs"
	groupProcess  group = "The process"
)

// groupOrder is the order of the help.
func groupOrder() []group {
	return []group{groupTunnel, groupPeers, groupIdentity, groupTimes, groupWatch, groupProcess}
}

// flag describes one flag of server or client.
type flag struct {
	name  string
	group group
	// into is a pointer to what the flag sets, whose value is the default: *string, *bool, *int, *uint32, *time.Duration or
	// a pflag.Value.
	into any
	// help has the name of the value in backquotes, and says default, unit, conflict and when not to use it. Without a text
	// the flag is hidden.
	help string
	// env is the variable that gives the value where the flag doesn't.
	env string
	// key is the setting's name in setting.Error and in a file.
	key string
	// alias is a hidden second name.
	alias string
	// own says that ghostunnel hasn't this flag. Its help doesn't show it under that name.
	own bool
	// global says that the flag may stand before the verb too.
	global bool
}

// add adds f to fs.
func (f flag) add(fs *pflag.FlagSet, ghostunnel bool) {
	switch into := f.into.(type) {
	case *string:
		fs.StringVar(into, f.name, *into, f.help)
	case *bool:
		fs.BoolVar(into, f.name, *into, f.help)
	case *int:
		fs.IntVar(into, f.name, *into, f.help)
	case *uint32:
		fs.Uint32Var(into, f.name, *into, f.help)
	case *time.Duration:
		fs.Var((*duration)(into), f.name, f.help)
	case pflag.Value:
		fs.Var(into, f.name, f.help)
	default:
		panic(fmt.Sprintf("sidecarcmd: flag --%s of type %T", f.name, into))
	}
	fs.Lookup(f.name).Hidden = f.help == "" || f.own && ghostunnel
	if f.alias != "" {
		cli.Alias(fs, f.name, f.alias)
	}
}

// duration is a flag with a unit. It shows whole numbers as people write them, 5m and not 5m0s.
type duration time.Duration

func (d *duration) Type() string { return "duration" }

func (d *duration) String() string { return shortDuration(time.Duration(*d)) }

// Set implements pflag.Value.
func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err == nil {
		*d = duration(v)
	}
	return err
}

func shortDuration(d time.Duration) string {
	if d == 0 {
		return "0" // which pflag takes for no default
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// choices is a flag that may be given more than once, each time with one of a few values.
type choices struct {
	values  []string
	accepts []string
}

var _ pflag.SliceValue = (*choices)(nil)

func (c *choices) String() string { return strings.Join(c.values, " ") }
func (c *choices) Type() string   { return "string" }

// Set implements pflag.Value.
func (c *choices) Set(v string) error {
	if err := (&cli.Choice{Accepts: c.accepts}).Set(v); v != "" && err != nil {
		if strings.Contains(v, ",") {
			return fmt.Errorf("%q is unknown; accepted: %s; repeat the flag for more than one", v, strings.Join(c.accepts, ", "))
		}
		return err
	}
	c.values = append(c.values, v)
	return nil
}

func (c *choices) Append(v string) error    { return c.Set(v) }
func (c *choices) Replace(v []string) error { c.values = v; return nil }
func (c *choices) GetSlice() []string       { return c.values }

// octal is a flag with the permissions of a file.
type octal uint32

func (o *octal) Type() string   { return "octal" }
func (o *octal) String() string { return fmt.Sprintf("%04o", uint32(*o)) }

// Set implements pflag.Value.
func (o *octal) Set(s string) error {
	mode, err := parseMode(s)
	*o = octal(mode)
	return err
}

// parseMode reads permissions as chmod takes them.
func parseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("want permissions in octal digits, like 0600 or 0660, got %q", s)
	}
	return uint32(n), nil
}
