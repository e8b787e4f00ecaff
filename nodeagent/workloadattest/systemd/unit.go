package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/lanyard-mtls/lanyard/nodeagent/workloadattest"
)

// Of org.freedesktop.systemd1(5).
const (
	service     = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerAPI  = "org.freedesktop.systemd1.Manager"
	unitAPI     = "org.freedesktop.systemd1.Unit"

	errorNoUnit = "org.freedesktop.systemd1.NoUnitForPID"
)

var errNoUnit = errors.New("in no unit")

// unit is what is known of one.
type unit struct {
	id           string // such as web.service
	fragmentPath string // its file's; "" where it has none
	invocationID string // hex; "" where it isn't started
}

const (
	// joining is how long systemd may take to come to a bus that was started anew,
	// joinInterval how often that is looked at.
	joining      = time.Second
	joinInterval = 20 * time.Millisecond
)

// unitOf asks for the unit of a process. A connection that broke since it was
// last used is made anew, once; on a new bus systemd is waited for.
func (b *bus) unitOf(ctx context.Context, proc *workloadattest.Process) (unit, error) {
	again := true
	for {
		conn, err := b.connect(ctx)
		if err != nil {
			return unit{}, err
		}
		u, err := conn.unitOf(ctx, proc)
		switch {
		case err == nil || ctx.Err() != nil:
			return u, err
		case !conn.Connected() && again:
			again = false
		case isNamed(err, "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner") && time.Since(conn.since) < joining:
			select {
			case <-time.After(joinInterval):
			case <-ctx.Done():
				return unit{}, err
			}
		default:
			return unit{}, err
		}
	}
}

// isNamed reports whether err is the other side's, and has one of the names.
func isNamed(err error, names ...string) bool {
	of, ok := errors.AsType[dbus.Error](err)
	return ok && slices.Contains(names, of.Name)
}

func (c *connection) unitOf(ctx context.Context, proc *workloadattest.Process) (unit, error) {
	path, err := c.pathOf(ctx, proc)
	if err != nil {
		return unit{}, err
	}
	object := c.Object(service, path)
	var u unit
	var invocation []byte
	for _, p := range []struct {
		name string
		into any
	}{{"Id", &u.id}, {"FragmentPath", &u.fragmentPath}, {"InvocationID", &invocation}} {
		call := object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, unitAPI, p.name)
		var value dbus.Variant
		err := call.Store(&value)
		if err == nil {
			err = value.Store(p.into)
		}
		if err != nil {
			return unit{}, fmt.Errorf("property %s of unit %s: %w", p.name, path, err)
		}
	}
	if u.id == "" {
		return unit{}, fmt.Errorf("unit %s has no name", path)
	}
	if len(invocation) == 16 { // a 128-bit ID; empty while nothing was started
		u.invocationID = hex.EncodeToString(invocation)
	}
	return u, nil
}

// pathOf returns the object path of a process's unit.
func (c *connection) pathOf(ctx context.Context, proc *workloadattest.Process) (dbus.ObjectPath, error) {
	path, err := c.pathByPIDFD(ctx, proc)
	if errors.Is(err, errors.ErrUnsupported) {
		err = c.Object(service, managerPath).CallWithContext(ctx, managerAPI+".GetUnitByPID",
			dbus.FlagNoAutoStart, uint32(proc.PID())).Store(&path)
	}
	if isNamed(err, errorNoUnit) {
		return "", errNoUnit
	}
	if err != nil {
		return "", fmt.Errorf("unit of pid %d: %w", proc.PID(), err)
	}
	return path, nil
}

// pathByPIDFD asks by a pidfd (version 253). The number is checked when it is
// opened and the process once more at the end, so that it pins the same.
func (c *connection) pathByPIDFD(ctx context.Context, proc *workloadattest.Process) (dbus.ObjectPath, error) {
	if c.noPIDFD.Load() || !c.SupportsUnixFDs() {
		return "", errors.ErrUnsupported
	}
	fd, err := unix.PidfdOpen(proc.PID(), 0)
	if err != nil {
		return "", errors.ErrUnsupported // an old kernel, or the process is gone
	}
	defer unix.Close(fd)
	if err := proc.Check(); err != nil {
		return "", err
	}
	var path dbus.ObjectPath
	var id string
	var invocation []byte
	err = c.Object(service, managerPath).CallWithContext(ctx, managerAPI+".GetUnitByPIDFD",
		dbus.FlagNoAutoStart, dbus.UnixFD(fd)).Store(&path, &id, &invocation)
	switch {
	case isNamed(err, "org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.AccessDenied"):
		// AccessDenied: the bus's policy lists the methods it lets through.
		c.noPIDFD.Store(true)
		return "", errors.ErrUnsupported
	case err != nil:
		return "", err
	}
	return path, nil
}
