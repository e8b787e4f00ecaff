package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lanyard-mtls/lanyard/integration/harness"
)

// postgres is a running server and the folder of its programs.
type postgres struct {
	bin          string
	tcp, unix    string // where it listens
	host, socket string // the same for its clients: host and port, and the socket's directory
}

// startPostgres makes a cluster for one test, as a user that is not root, and starts a server on it.
func startPostgres(t *testing.T, s *harness.Stage) postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("no PostgreSQL server in /usr/lib/postgresql: make test installs it where it can")
	}
	pg := postgres{bin: filepath.Dir(found[len(found)-1]), tcp: s.Addr(), socket: s.Path("pg")}
	host, port, _ := strings.Cut(pg.tcp, ":")
	pg.host, pg.unix = host, filepath.Join(pg.socket, ".s.PGSQL."+port)
	as := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(pg.bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = pg.socket, &syscall.SysProcAttr{Credential: unprivileged(t, s.Dir, pg.socket)}
		return cmd
	}
	data := filepath.Join(pg.socket, "data")
	if out, err := as("initdb", "-D", data, "-A", "trust", "-U", "tester", "-N", "--no-locale").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.StartCmd("postgres", as("postgres", "-D", data, "-p", port, "-c", "listen_addresses="+host,
		"-c", "unix_socket_directories="+pg.socket, "-c", "fsync=off"))
	s.Until(fetchLimit, "postgres", func(ctx context.Context) error {
		_, err := harness.Run(ctx, filepath.Join(pg.bin, "psql"), pg.at(pg.tcp, "psql", "-c", "select 1")[1:]...)
		return err
	})
	return pg
}

// unprivileged is a user that a server which refuses root runs as; it may enter home and owns own. Nil is this user.
func unprivileged(t *testing.T, home, own string) *syscall.Credential {
	t.Helper()
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Skipf("no user to run a server as that refuses root: %v", err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	if err := errors.Join(os.Chmod(home, 0o711), os.Chown(own, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// at is a client program's command line to a server at addr.
func (pg postgres) at(addr, name string, args ...string) []string {
	host, port, _ := strings.Cut(addr, ":")
	command := []string{filepath.Join(pg.bin, name), "-h", host, "-p", port, "-U", "tester"}
	if name == "psql" {
		command = append(command, "-d", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
	}
	return append(command, args...)
}

func TestSidecarPostgres(t *testing.T) {
	t.Parallel()
	d := newDomain(t)
	pg := startPostgres(t, d.Stage)
	t.Run("copies over TCP", func(t *testing.T) {
		p := newSVIDs(t).pair(pg.tcp)
		pg.copies(t, p.client.Listen)
		connections(t, p.client, 3, "closed", "reset")
	})
	t.Run("transactions over UNIX", func(t *testing.T) {
		p := newSVIDs(t).pair("unix:" + pg.unix)
		pg.transacts(t, p.client.Listen)
		connections(t, p.client, len(p.client.Logged("connection")), "closed", "reset")
	})
	p := newPair(t, d, "unix:"+pg.unix, rotatingLife)
	t.Run("notifications over a rotation", func(t *testing.T) { pg.notifies(t, p) })
	t.Run("cancels", func(t *testing.T) { pg.cancels(t, p) })
}

// copies sends some megabytes into a table and gets them back.
func (pg postgres) copies(t *testing.T, addr string) {
	t.Helper()
	var rows bytes.Buffer
	for n := range 100_000 {
		fmt.Fprintf(&rows, "%d\tthe row with number %d of the table\n", n, n)
	}
	run(t, pg.at(addr, "psql")[0], pg.at(addr, "psql", "-c", "create table rows (n int, words text)")[1:]...)
	in := pg.at(addr, "psql", "-c", "copy rows from stdin")
	load := exec.CommandContext(t.Context(), in[0], in[1:]...)
	load.Stdin = bytes.NewReader(rows.Bytes())
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("copy from: %v\n%s", err, out)
	}
	out := pg.at(addr, "psql", "-c", "copy rows to stdout")
	unload := exec.CommandContext(t.Context(), out[0], out[1:]...)
	sum := sha256.New()
	unload.Stdout = sum
	if err := unload.Run(); err != nil {
		t.Fatalf("copy to: %v", err)
	}
	if want := sha256.Sum256(rows.Bytes()); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Errorf("other rows came back than the %d bytes that went in", rows.Len())
	}
}

// transacts runs pgbench on eight connections.
func (pg postgres) transacts(t *testing.T, addr string) {
	t.Helper()
	prepare := pg.at(addr, "pgbench", "-i", "-q", "-I", "dtg", "postgres")
	run(t, prepare[0], prepare[1:]...)
	bench := pg.at(addr, "pgbench", "-c", "8", "-j", "2", "-t", "50", "-n", "postgres")
	if out := run(t, bench[0], bench[1:]...); !strings.Contains(out, "processed: 400/400") {
		t.Errorf("not all of 400 transactions:\n%s", out)
	}
}

// session is a psql that takes commands as they come.
type session struct {
	*harness.Process
	commands io.Writer
}

func (pg postgres) session(t *testing.T, p *pair, name string) session {
	t.Helper()
	command := pg.at(p.client.Listen, "psql", "-f", "-")
	cmd := exec.Command(command[0], command[1:]...)
	commands, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return session{p.StartCmd(name, cmd), commands}
}

func (s session) say(t *testing.T, command string) {
	t.Helper()
	if _, err := io.WriteString(s.commands, command+"\n"); err != nil {
		t.Fatal(err)
	}
}

// notifies listens on one connection while another notifies, before and after both identities were replaced.
func (pg postgres) notifies(t *testing.T, p *pair) {
	listener := pg.session(t, p, "listener")
	listener.say(t, "listen news; select 'listening';")
	if _, err := listener.WaitFor(t.Context(), "listening"); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"before", "after"} {
		notify := pg.at(p.client.Listen, "psql", "-c", "notify news, '"+word+"'")
		run(t, notify[0], notify[1:]...)
		p.Until(fetchLimit, "the notification", func(context.Context) error { // psql shows it after a command
			listener.say(t, "select 1;")
			if !strings.Contains(listener.Log.Tail(1000), `payload "`+word+`"`) {
				return errLess
			}
			return nil
		})
		if word == "before" {
			p.rotated()
		}
	}
	listener.say(t, `\q`)
	<-listener.Done()
}

// cancels interrupts a statement: psql asks for it over a connection of its own, and closes that without an answer.
func (pg postgres) cancels(t *testing.T, p *pair) {
	sleeper := pg.session(t, p, "sleeper")
	sleeper.say(t, "select pg_sleep(600);")
	p.Until(fetchLimit, "the statement to run", func(ctx context.Context) error {
		watch := pg.at(pg.tcp, "psql", "-c", "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'")
		out, err := harness.Run(ctx, watch[0], watch[1:]...)
		if err == nil && strings.TrimSpace(out) != "1" {
			err = errLess
		}
		return err
	})
	if err := syscall.Kill(sleeper.PID(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := sleeper.WaitFor(t.Context(), "canceling statement due to user request"); err != nil {
		t.Error(err)
	}
	<-sleeper.Done()
}
