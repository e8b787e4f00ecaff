package issuercli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lanyard-mtls/lanyard/internal/cli"
	"github.com/lanyard-mtls/lanyard/internal/durable"
	"github.com/lanyard-mtls/lanyard/internal/seal"
	"github.com/lanyard-mtls/lanyard/internal/spireapi/operationsv1"
)

// backedUp is the answer of backup.
type backedUp struct {
	Path      string `json:"path"`
	Bytes     int64  `json:"bytes"`
	Encrypted bool   `json:"encrypted"`
}

// backupFlags are the flags of backup.
type backupFlags struct {
	out, passphraseFile string
	recipients          cli.Strings
	plaintext           bool
}

func backupVerb(env *cli.Env) *cobra.Command {
	v := newVerb(env, "backup", "Write an encrypted copy of everything the issuer knows, with its keys").withOutput()
	v.Long = `Write a consistent copy of everything the issuer knows, with its private keys, while it runs. The file is encrypted in the age
format (age-encryption.org), for recipients or by a passphrase, and appears under its name only when it is whole.

"lanyard issuer restore" makes a data directory of it. Who can open it can be the issuer: keep the identity file elsewhere.`
	v.Example = `  age-keygen -o issuer.key                # prints the recipient, age1…; keep the file elsewhere
  lanyard issuer backup -out issuer.age -recipient age1…
  lanyard issuer backup -out issuer.age -passphrase-file passphrase`
	var f backupFlags
	v.Flags().StringVar(&f.out, "out", "", "`FILE` to write, 0600; one that is there is replaced; - for standard output")
	v.Flags().Var(&f.recipients, "recipient", "age `RECIPIENT` that can open it, age1…; may be given more than once")
	v.Flags().StringVar(&f.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase in one line, - for standard input; conflicts with -recipient")
	v.Flags().BoolVar(&f.plaintext, "plaintext", false, "do not encrypt: the file holds the private keys for everybody to read who gets it")
	v.RunE = func(*cobra.Command, []string) error {
		to, err := f.sealTo(env)
		if err != nil {
			return err
		}
		return v.ownCall(func(ctx context.Context, c operationsv1.OperationsClient) error {
			done := backedUp{Path: f.out, Encrypted: to != nil}
			receive := func(w io.Writer) (err error) {
				done.Bytes, err = receiveBackup(ctx, c, w, to)
				return err
			}
			if f.out == "-" {
				return receive(env.Stdout)
			}
			if err := writeWhole(f.out, receive); err != nil {
				return err
			}
			return v.out.Struct(env.Stdout, done, func(w io.Writer) { f.tell(w, done) })
		})
	}
	return cli.ExitLikeLanyard(v.Command)
}

// sealTo settles who can open the file; nil is everybody.
func (f *backupFlags) sealTo(env *cli.Env) (*seal.To, error) {
	secured := len(f.recipients) > 0 || f.passphraseFile != ""
	switch {
	case f.out == "":
		return nil, cli.Usagef("-out is missing: the file to write, or - for standard output")
	case f.out == "-" && cli.IsTerminal(env.Stdout):
		return nil, cli.Usagef("-out -: standard output is a terminal; name a file")
	case f.plaintext && secured:
		return nil, cli.Usagef("-plaintext can't be combined with -recipient or -passphrase-file")
	case f.plaintext:
		return nil, nil
	case !secured:
		return nil, cli.Hint(cli.Usagef("a backup holds the private keys: say who can open it with -recipient age1… or -passphrase-file FILE"),
			"\"age-keygen -o issuer.key\" makes an identity and prints its recipient; -plaintext leaves the file open to everybody who gets it")
	}
	to := &seal.To{Recipients: f.recipients}
	if f.passphraseFile != "" {
		passphrase, err := readSecret(env, f.passphraseFile, "passphrase")
		if err != nil {
			return nil, err
		}
		to.Passphrase = passphrase
	}
	if err := to.Check(); err != nil {
		if f.passphraseFile != "" {
			return nil, cli.Usagef("-passphrase-file %s: %v", f.passphraseFile, err)
		}
		return nil, cli.Usagef("%v", err)
	}
	return to, nil
}

func (f *backupFlags) tell(w io.Writer, done backedUp) {
	if !done.Encrypted {
		fmt.Fprintf(w, "Backup written to %s, %d bytes, NOT encrypted: whoever can read it can be this issuer\n", done.Path, done.Bytes)
		return
	}
	how := cli.Count(len(f.recipients), "recipient", "recipients")
	if f.passphraseFile != "" {
		how = "the passphrase"
	}
	fmt.Fprintf(w, "Backup written to %s, %d bytes, encrypted for %s\n", done.Path, done.Bytes, how)
}

// receiveBackup writes the issuer's backup to w, sealed unless to is nil, and gives its size before that. An error means that
// what w got is not whole.
func receiveBackup(ctx context.Context, c operationsv1.OperationsClient, w io.Writer, to *seal.To) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where this ends before it
	stream, err := c.Backup(ctx, &operationsv1.BackupRequest{})
	if err != nil {
		return 0, cli.RPCError(err)
	}
	var sealed io.WriteCloser
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, cli.RPCError(err)
		}
		if to != nil && sealed == nil { // now that there is something: who asked in vain shouldn't wait for the passphrase
			if sealed, err = seal.Encrypt(w, *to); err != nil {
				return size, err
			}
			w = sealed
		}
		n, err := w.Write(part.Chunk)
		size += int64(n)
		if err != nil {
			return size, err
		}
	}
	if size == 0 {
		return 0, errors.New("the issuer sent an empty backup")
	}
	if sealed != nil {
		return size, sealed.Close()
	}
	return size, nil
}

// writeWhole has write write a new file, which gets its name only when it is whole and on disk. Its mode is 0600.
func writeWhole(path string, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return cli.Hint(err, "the directory must be there and writable: mkdir -m 700 %s", dir)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return durable.SyncDir(dir)
}
