package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version tells what was built: the module's version, the commit it is from where the build knows it, and Go's.
func Version() string {
	version, revision, dirty := "(devel)", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" {
			version = v
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && len(s.Value) >= 12:
				revision = ", commit " + s.Value[:12]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with changes"
			}
		}
	}
	return fmt.Sprintf("lanyard %s%s%s, %s %s/%s", version, revision, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// VersionVerb is the verb "version".
func VersionVerb(env *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell which build this is",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.Stdout, Version())
			return err
		},
	}
}

// Root is the command of a program: -version, and the verb version.
func Root(env *Env, name, long string) *cobra.Command {
	root := &cobra.Command{Use: name, Long: long, Version: Version()}
	// Functions, not templates: what can call methods by name keeps the linker from dropping those that nobody calls.
	root.SetUsageFunc(printUsage)
	root.SetHelpFunc(printHelp)
	root.AddCommand(VersionVerb(env))
	return root
}

// SampleVerb is the verb that prints a role's sample configuration.
func SampleVerb(env *Env, sample string) *cobra.Command {
	return &cobra.Command{
		Use:   "sample",
		Short: "Print a commented configuration file to start from",
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(env.Stdout, sample)
			return err
		},
	}
}
