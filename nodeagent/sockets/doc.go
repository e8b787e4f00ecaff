// Package sockets owns the agent's listening sockets: it gets them from the
// agent that ran before, from systemd, or binds them, and hands them on, so that
// a socket file that is mounted into a container outlives the agent behind it. It
// also owns what is said to systemd, and the lock on data_dir while one agent
// follows another. It does not say what is served on a socket.
package sockets
