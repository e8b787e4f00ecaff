package serverapi

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// localCreds are the transport of the admin socket: no cryptography, and a note
// of the process at the other end, for the log alone. Who may connect is a
// matter of the socket's mode.
type localCreds struct{}

// localInfo is the process that connected, as the kernel tells (SO_PEERCRED); it
// may have ended since.
type localInfo struct {
	credentials.CommonAuthInfo
	known    bool
	pid      int32
	uid, gid uint32
}

// AuthType implements [credentials.AuthInfo].
func (localInfo) AuthType() string { return "local" }

func (i localInfo) attrs() []slog.Attr {
	if !i.known {
		return nil
	}
	return []slog.Attr{slog.Int("caller_pid", int(i.pid)), slog.Uint64("caller_uid", uint64(i.uid)), slog.Uint64("caller_gid", uint64(i.gid))}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (localCreds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := localInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return conn, info, nil
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return conn, info, nil
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil && credErr == nil {
		info.known, info.pid, info.uid, info.gid = true, cred.Pid, cred.Uid, cred.Gid
	}
	return conn, info, nil
}

// ClientHandshake implements [credentials.TransportCredentials].
func (localCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the admin socket's credentials are a server's")
}

// Info implements [credentials.TransportCredentials].
func (localCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone implements [credentials.TransportCredentials].
func (c localCreds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements [credentials.TransportCredentials].
func (localCreds) OverrideServerName(string) error { return nil }
