package agentcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lanyard-mtls/lanyard/internal/hclconf"
	"github.com/lanyard-mtls/lanyard/nodeagent"
)

// defaultSocketMode is that of a socket that anyone may be given.
const defaultSocketMode fs.FileMode = 0o777

// sockets reads the blocks of agent.socket. Their faults are kept in the file.
func (b *agentBlock) sockets(conf *hclconf.File) []nodeagent.WorkloadSocket {
	var all []nodeagent.WorkloadSocket
	names := map[string]bool{}
	paths := map[string]string{clean(b.SocketPath): "socket_path", clean(b.AdminSocketPath): "admin_socket_path"}
	delete(paths, "")
	for _, s := range b.Sockets {
		wrong := func(key, format string, args ...any) {
			at := conf.At(fmt.Sprintf("agent.socket %q: %s", s.Name, key))
			if at == (hclconf.Pos{}) {
				at = s.At
			}
			conf.Errorf(at, "agent.socket %q: %s", s.Name, fmt.Sprintf(format, args...))
		}
		socket := nodeagent.WorkloadSocket{Name: s.Name, Path: s.Path, Only: s.Only}
		var err error
		if err = spiffeid.ValidatePathSegment(s.Name); err != nil {
			wrong("", "the name must be one segment of a SPIFFE ID's path, as it is in the selector lanyard:socket:NAME: %v", err)
		} else if names[s.Name] {
			conf.Errorf(s.At, "agent.socket %q is given twice", s.Name)
		}
		names[s.Name] = true
		switch other := paths[clean(s.Path)]; {
		case s.Path == "":
			wrong("path", "path is missing: where to make the socket")
		case other != "":
			wrong("path", "path %s is that of %s already", s.Path, other)
		default:
			paths[clean(s.Path)] = fmt.Sprintf("socket %q", s.Name)
		}
		if socket.Mode, err = parseMode(s.Mode); err != nil {
			wrong("mode", "mode: %v", err)
		}
		if socket.UID, err = lookupID(s.User, user.Lookup, func(u *user.User) string { return u.Uid }); err != nil {
			wrong("user", "user: %v", err)
		}
		if socket.GID, err = lookupID(s.Group, user.LookupGroup, func(g *user.Group) string { return g.Gid }); err != nil {
			wrong("group", "group: %v", err)
		}
		all = append(all, socket)
	}
	return all
}

func clean(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Clean(path)
}

// parseMode reads permissions as chmod takes them: "0660". Without quotes that is a number, which reads the same.
func parseMode(text string) (fs.FileMode, error) {
	if text == "" {
		return defaultSocketMode, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return 0, fmt.Errorf("%q: want permissions such as \"0660\"", text)
	}
	return fs.FileMode(n), nil
}

// lookupID is the number of a user or group, by name or number; -1, which changes nothing, where there is none.
func lookupID[T any](name string, lookup func(string) (T, error), id func(T) string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	found, err := lookup(name)
	if err != nil {
		return -1, fmt.Errorf("%q is not known on this machine", name)
	}
	n, err := strconv.ParseUint(id(found), 10, 31)
	if err != nil {
		return -1, errors.New("has no number")
	}
	return int(n), nil
}
