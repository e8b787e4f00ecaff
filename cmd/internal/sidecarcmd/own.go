package sidecarcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lanyard-mtls/lanyard/cmd/internal/conffile"
	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/internal/run"
	"github.com/lanyard-mtls/lanyard/internal/telemetry"
	"github.com/lanyard-mtls/lanyard/sidecar"
	"github.com/lanyard-mtls/lanyard/sidecar/identity/filewatch"
	"github.com/lanyard-mtls/lanyard/sidecar/notify"
)

// fileFlags are those of run and validate.
type fileFlags struct {
	env       *cli.Env
	config    string
	expandEnv bool
	logs      cli.LogFlags
}

func (f *fileFlags) add(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.StringVar(&f.config, "config", "", "configuration `FILE` (required); \"lanyard sidecar sample\" prints one to start from")
	fs.BoolVar(&f.expandEnv, "expandEnv", false, "replace $NAME and ${NAME} in the file by the environment")
	f.logs.Add(fs)
}

// settings is a configuration that run can start with, or go on with.
type settings struct {
	cfg  sidecar.Config
	log  telemetry.Config
	file *file
	conf *hclconf.File
}

// settings reads the file, and checks all that can be checked without starting.
func (f *fileFlags) settings() (settings, error) {
	if f.config == "" {
		return settings{}, cli.Hint(cli.Usagef("-config is missing: name the configuration file"), "\"lanyard sidecar sample\" prints one to start from; for one tunnel, \"lanyard sidecar server\" and \"client\" need none")
	}
	if err := f.logs.Check(); err != nil {
		return settings{}, err
	}
	var content file
	conf, err := conffile.Source{Named: f.config, ExpandEnv: f.expandEnv}.Read(f.env, &content)
	if err != nil {
		return settings{}, err
	}
	broken := conf.Err() != nil
	s := settings{file: &content, conf: conf, log: f.logs.Over(content.log())}
	conf.Check("log_level", telemetry.Check(content.LogLevel, ""))
	conf.Check("log_format", telemetry.Check("", content.LogFormat))
	if content.Syslog && content.LogFile != "" {
		conf.Errorf(conf.At("syslog"), "syslog and log_file are both set: keep one")
	}
	cfg, err := content.config(f.env)
	inFile(conf, content.unambiguous(err))
	if !broken { // a value that couldn't be read would be called missing too
		inFile(conf, content.unambiguous(without(cfg.Validate(), err)))
	}
	cfg.Sandbox.ReadFiles = append(cfg.Sandbox.ReadFiles, f.config) // to read it again
	keepACME(&cfg)
	s.cfg = cfg
	return s, conf.Err()
}

func runVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run -config FILE [flags]",
		Short: "Carry the tunnels of a configuration file until it is told to stop",
		Long: `Carry any number of tunnels, which a configuration file describes, until it is told to stop.

The file is read again on SIGHUP or SIGUSR1, and when it changes: all of it or, if anything is wrong, nothing, and then the
log says what. Listeners that stay keep their sockets and connections; tunnels that are gone finish theirs. Certificate and
CA files are read again when they change. The first SIGINT or SIGTERM stops it in order, a second one at once.`,
		Example:               "  lanyard sidecar run -config sidecar.hcl",
		DisableFlagsInUseLine: true,
	}
	f := &fileFlags{env: env}
	f.add(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error { return f.run(cmd.Context()) }
	return cmd
}

func (f *fileFlags) run(ctx context.Context) error {
	hangup, deaf := hangups()
	defer deaf()
	ctx, stop := run.Signals(ctx, f.env.Stderr, f.env.Exit)
	defer stop()
	first, err := f.settings()
	if err != nil {
		return err
	}
	return cli.WithLog(first.log, f.env.Stdout, func(log *slog.Logger) error {
		watch := filewatch.New(log, f.config)
		if first, err = f.settings(); err != nil { // what is watched from here on is what is started with
			return err
		}
		changed := make(chan struct{}, 1)
		watching, done := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- watch.Run(watching, func() { offer(changed) }) }()
		defer func() {
			done()
			if err := <-ended; err != nil {
				log.Warn("the configuration file is not watched", "error", err)
			}
		}()
		first.cfg.Log, first.cfg.Deps = log, parts(log, nil)
		if first.cfg.Notify, err = notify.FromEnv(f.env.Getenv); err != nil {
			log.Warn(err.Error())
		}
		reload := func(s *sidecar.Sidecar) func(context.Context) error {
			return func(ctx context.Context) error { return f.reload(ctx, s, log) }
		}
		return first.inFile(serve(ctx, first.cfg, reloader{log: log, hangup: hangup, changed: changed}, reload))
	})
}

// reload reads the file again and has s do what it says.
func (f *fileFlags) reload(ctx context.Context, s *sidecar.Sidecar, log *slog.Logger) error {
	next, err := f.settings()
	if err != nil {
		s.ReloadFailed(err)
		return err
	}
	next.cfg.Log, next.cfg.Deps = log, parts(log, nil)
	if err := s.Reload(ctx, next.cfg); err != nil {
		return next.inFile(err)
	}
	warn(log, next.cfg.Tunnels)
	return nil
}

// inFile words err by file and line, if any of it is about a setting.
func (c settings) inFile(err error) error {
	if err == nil || errors.Is(err, sidecar.ErrNotRunning) {
		return err
	}
	return wordedInFile(c.conf, err)
}

// offer tells without waiting: one untold change is as good as two.
func offer(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}

func validateVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate -config FILE [flags]",
		Short: "Check a configuration file as run would, and start nothing",
		Long: `Check a configuration file as run would, and start nothing: everything that is wrong with it is told in one go. Exit code 0 if
run would take it, 1 if not, 2 for wrong usage. Whether certificate files are good, and ports free, only run finds out.`,
		Example:               "  lanyard sidecar validate -config sidecar.hcl",
		DisableFlagsInUseLine: true,
	}
	f := &fileFlags{env: env}
	f.add(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := f.settings()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "Sidecar configuration is valid: %s.\n", cli.Count(len(s.cfg.Tunnels), "tunnel", "tunnels"))
		return err
	}
	return cmd
}
