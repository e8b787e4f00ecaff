package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/internal/cli"
)

// prompt types an answer once it was asked, when the terminal must not show it.
type prompt struct {
	bytes.Buffer
	answer func()
}

func (p *prompt) Write(b []byte) (int, error) {
	if p.Len() == 0 {
		p.answer()
	}
	return p.Buffer.Write(b)
}

func TestSecretsAreTypedUnseen(t *testing.T) {
	t.Parallel()
	master, terminal := pty(t)
	echo := func() bool {
		state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	asked := &prompt{}
	asked.answer = func() {
		if echo() {
			t.Error("the terminal shows what is typed")
		}
		if _, err := master.WriteString("a long secret\n"); err != nil {
			t.Error(err)
		}
	}
	line, typed, err := cli.ReadTyped(terminal, asked, "passphrase")
	if line != "a long secret\n" || !typed || err != nil {
		t.Errorf("%q, %v, %v", line, typed, err)
	}
	if asked.String() != "passphrase: \n" {
		t.Errorf("asked %q", asked)
	}
	if !echo() {
		t.Error("the terminal stays blind")
	}
	if _, typed, err := cli.ReadTyped(bytes.NewReader(nil), asked, "passphrase"); typed || err != nil {
		t.Errorf("%v, %v of what is no terminal", typed, err)
	}
}

// pty is both ends of a terminal.
func pty(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
