// Package seal owns the encryption of what leaves the machine, such as a backup: files of the age format
// (age-encryption.org/v1), for recipients or under a passphrase. It keeps no keys, and it reads and writes streams of any
// size without holding them.
package seal

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// To says who can open what is sealed: the recipients, or whoever knows the passphrase; never both, as the age format has it.
type To struct {
	// Recipients are public keys: age1… (with a post-quantum one, age1pq1…). Several may each open it alone.
	Recipients []string
	// Passphrase is stretched by scrypt, for about a second. 8 characters at least.
	Passphrase string

	cost int // of the passphrase, in tests; 0 is workFactor
}

// Key opens what is sealed.
type Key struct {
	// Identities is the content of age's key files: a line AGE-SECRET-KEY-… each, and comments.
	Identities []byte
	Passphrase string
}

const (
	// workFactor is the logarithm of the cost of a passphrase: 256 MiB of memory.
	workFactor = 18
	// maxWorkFactor is the greatest cost that a file may ask for: 1 GiB of memory.
	maxWorkFactor = 20
	minPassphrase = 8
	maxHeader     = 1 << 20 // bytes; a recipient takes about 150, a post-quantum one 1,700
	maxIdentities = 64 << 10
)

// What is wrong with a key.
var (
	// ErrNoRecipient is of a To that names nobody.
	ErrNoRecipient = errors.New("nobody could open it: name a recipient, age1…, or give a passphrase")
	// ErrWrongKey is wrapped where none of the keys opens the file.
	ErrWrongKey = errors.New("none of the keys given opens it")
	// ErrKeyNeeded is of a sealed file and an empty Key.
	ErrKeyNeeded = errors.New("it is encrypted: give the age key file or the passphrase")
)

// Check says what is wrong with to, without sealing anything. It repeats no passphrase.
func (to To) Check() error {
	_, err := to.recipients()
	return err
}

func (to To) recipients() ([]age.Recipient, error) {
	switch {
	case len(to.Recipients) == 0 && to.Passphrase == "":
		return nil, ErrNoRecipient
	case len(to.Recipients) > 0 && to.Passphrase != "":
		return nil, errors.New("a file is sealed for recipients or by a passphrase, not for both: take one away")
	case len(to.Recipients) == 0:
		return passphraseRecipient(to.Passphrase, cmp.Or(to.cost, workFactor))
	}
	var all []age.Recipient
	var wrong []error
	for _, text := range to.Recipients {
		r, err := age.ParseRecipients(strings.NewReader(text))
		switch {
		case strings.HasPrefix(text, "AGE-SECRET-KEY-"):
			wrong = append(wrong, errors.New("that recipient is a secret key: give the public one, age1…"))
		case err != nil || len(r) != 1:
			wrong = append(wrong, fmt.Errorf("recipient %q is no public key of age: want age1…", clip(text)))
		default:
			all = append(all, r[0])
		}
	}
	return all, errors.Join(wrong...)
}

func passphraseRecipient(passphrase string, cost int) ([]age.Recipient, error) {
	if len(passphrase) < minPassphrase {
		return nil, fmt.Errorf("the passphrase is shorter than %d characters", minPassphrase)
	}
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(cost)
	return []age.Recipient{r}, nil
}

// Encrypt returns a writer that seals what it is given into w. The file is whole only when Close returned nil; Close does
// not close w.
func Encrypt(w io.Writer, to To) (io.WriteCloser, error) {
	recipients, err := to.recipients()
	if err != nil {
		return nil, err
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed, nil
}

const plainIntro = "age-encryption.org/"

// Decrypt returns a reader of what is sealed in r, in age's binary or armored form; of r itself if it is not sealed, and
// sealed is false then. An error of the reader other than io.EOF, at the end too, means that what was read so far is not to be
// trusted.
func Decrypt(r io.Reader, key Key) (content io.Reader, sealed bool, err error) {
	in := bufio.NewReader(r)
	start, err := in.Peek(len(armor.Header))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	switch {
	case bytes.HasPrefix(start, []byte(armor.Header)):
		r = armor.NewReader(in)
	case bytes.HasPrefix(start, []byte(plainIntro)):
		r = in
	default:
		return in, false, nil
	}
	identities, err := key.identities()
	if err != nil {
		return nil, true, err
	}
	guarded := &headerGuard{r: r, left: maxHeader}
	content, err = age.Decrypt(guarded, identities...)
	guarded.over = true
	if _, no := errors.AsType[*age.NoIdentityMatchError](err); no {
		return nil, true, fmt.Errorf("decrypt: %w", ErrWrongKey)
	}
	if err != nil {
		return nil, true, fmt.Errorf("decrypt: %w", err)
	}
	return content, true, nil
}

// headerGuard bounds what age reads, and keeps in memory, before it knows that a key opens the file.
type headerGuard struct {
	r    io.Reader
	left int
	over bool
}

func (g *headerGuard) Read(p []byte) (int, error) {
	if !g.over && g.left <= 0 {
		return 0, errors.New("its header is too large")
	}
	n, err := g.r.Read(p)
	g.left -= n
	return n, err
}

func (k Key) identities() ([]age.Identity, error) {
	var all []age.Identity
	if k.Passphrase != "" {
		id, err := age.NewScryptIdentity(k.Passphrase)
		if err != nil {
			return nil, err
		}
		id.SetMaxWorkFactor(maxWorkFactor)
		all = append(all, id)
	}
	if len(k.Identities) > maxIdentities {
		return nil, errors.New("the key file is larger than 64 KiB: it is no key file of age")
	}
	if len(bytes.TrimSpace(k.Identities)) > 0 {
		ids, err := age.ParseIdentities(bytes.NewReader(k.Identities))
		if err != nil { // its text could repeat a line of the file
			return nil, errors.New("the key file is none of age: want lines of AGE-SECRET-KEY-…, and # comments")
		}
		all = append(all, ids...)
	}
	if len(all) == 0 {
		return nil, ErrKeyNeeded
	}
	return all, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
