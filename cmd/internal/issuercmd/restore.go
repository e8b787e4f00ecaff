package issuercmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/seal"
	"github.com/lanyard-mtls/lanyard/issuer/backup"
)

// restoreFlags are those of restore, beside run's, which say where it goes.
type restoreFlags struct {
	in, passphraseFile string
	identities         cli.Strings
}

func restoreVerb(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore -in FILE [flags]",
		Short: "Make a data directory of a backup, for an issuer to start on",
		Long: `Make a data directory of a backup, for an issuer to start on. No issuer runs on it meanwhile, and nothing is in it yet: all
of the backup gets there or nothing. With -config or -dataDir as run has them.

What happened since the backup is lost, and what others may have seen of it is taken care of: join tokens are void, the
sequence number of the bundle goes on above any that was used, and new authorities are made at the first start. Agents that
joined before the backup go on, also those that were banned or evicted since: do that again. Those that joined after it join
again.`,
		Example: `  lanyard issuer restore -in issuer.age -identity issuer.key -config issuer.hcl
  lanyard issuer restore -in - -passphrase-file passphrase -dataDir /var/lib/lanyard/issuer < issuer.age`,
		DisableFlagsInUseLine: true,
	}
	var f flags
	var r restoreFlags
	r.add(cmd)
	f.add(env, cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		key, err := r.key(env)
		if err != nil {
			return err
		}
		s, err := f.settings(cmd.Context(), env)
		if err != nil {
			return err
		}
		in := io.NopCloser(env.Stdin)
		if r.in != "-" {
			if in, err = os.Open(r.in); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
		}
		defer in.Close()
		content, _, err := seal.Decrypt(in, key)
		if err != nil {
			return advise(fmt.Errorf("%s: %w", inputName(r.in), err))
		}
		to := backup.Target{DataDir: s.issuer.DataDir, KeyFile: s.issuer.KeyFile}
		if f.set.Changed("trustDomain") || f.config != "" {
			to.TrustDomain = s.issuer.TrustDomain
		}
		done, err := backup.Restore(cmd.Context(), content, to)
		if err != nil {
			return fmt.Errorf("%s: %w", inputName(r.in), err)
		}
		r.tell(env.Stdout, to, done)
		return nil
	}
	return cli.ExitLikeLanyard(cmd)
}

func (r *restoreFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.in, "in", "", "`FILE` that \"lanyard issuer backup\" wrote; - for standard input")
	cmd.Flags().Var(&r.identities, "identity", "age key `FILE` that can open it; may be given more than once")
	cmd.Flags().StringVar(&r.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase in one line, - for standard input")
}

// key reads what opens the file.
func (r *restoreFlags) key(env *cli.Env) (key seal.Key, err error) {
	if r.in == "" {
		return key, cli.Usagef("-in is missing: the backup to read, or - for standard input")
	}
	if r.in == "-" && r.passphraseFile == "-" {
		return key, cli.Usagef("-in and -passphrase-file are both standard input: name a file for one of them")
	}
	for _, file := range r.identities {
		text, err := readSmall(env, file)
		if err != nil {
			return key, err
		}
		key.Identities = append(append(key.Identities, text...), '\n')
	}
	if r.passphraseFile != "" {
		text, typed, err := "", false, error(nil)
		if r.passphraseFile == "-" {
			text, typed, err = cli.ReadTyped(env.Stdin, env.Stderr, "passphrase")
		}
		if !typed {
			var data []byte
			data, err = readSmall(env, r.passphraseFile)
			text = string(data)
		}
		if err != nil {
			return key, err
		}
		key.Passphrase = strings.TrimRight(text, "\r\n")
		if key.Passphrase == "" {
			return key, fmt.Errorf("%s is empty: want the passphrase, in one line", inputName(r.passphraseFile))
		}
	}
	return key, nil
}

const maxSecretFile = 64 << 10 // bytes

func readSmall(env *cli.Env, path string) ([]byte, error) {
	in := env.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	if err == nil && len(text) > maxSecretFile {
		return nil, fmt.Errorf("%s is larger than %d KiB: want a key or a passphrase", inputName(path), maxSecretFile>>10)
	}
	return text, err
}

func inputName(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

func advise(err error) error {
	switch {
	case errors.Is(err, seal.ErrKeyNeeded):
		return cli.Hint(err, "-identity issuer.key, or -passphrase-file FILE")
	case errors.Is(err, seal.ErrWrongKey):
		return cli.Hint(err, "it was made for other recipients, or with another passphrase")
	}
	return err
}

func (r *restoreFlags) tell(w io.Writer, to backup.Target, done backup.Restored) {
	fmt.Fprintf(w, "Restored trust domain %s as of %s into %s\n", done.TrustDomain.Name(), done.CreatedAt.Format(time.RFC3339), to.DataDir)
	if !done.HasKeys {
		fmt.Fprintln(w, "There were no private keys in it: agents have to learn the authorities that the first start makes.")
	}
	fmt.Fprintln(w, "Join tokens are void: make new ones. New authorities are made at the first start.")
	fmt.Fprintln(w, "Agents that were banned or evicted since the backup are not: ban or evict them again.")
}
