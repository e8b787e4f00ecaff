package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// print tells where things are and what to try, in commands that can be pasted as they are.
func (u *up) print() {
	node, err := u.node()
	if err != nil {
		return
	}
	me := self()
	plain := *u.env
	plain.Getenv = func(name string) string {
		if strings.HasPrefix(name, "LANYARD_") {
			return "" // another terminal may not have it
		}
		return u.env.Getenv(name)
	}
	socket := func(path, usual string) string {
		if path == usual {
			return ""
		}
		return " -socketPath " + quote(path)
	}
	issuerFlag := socket(u.paths.IssuerSocket(), plain.IssuerSocket())
	agentFlag := socket(u.paths.AgentSocket(), plain.AgentSocket())
	fmt.Fprintf(u.env.Stdout, `Lanyard is up: trust domain %[1]s, on this machine alone. Ctrl-C stops it.

  issuer        %[2]s, admin socket %[3]s
  Workload API  unix://%[4]s   (SDS for Envoy is there too)
  state         %[5]s

Try, in another terminal:

  # your user's processes get an identity
  %[6]s issuer entry create%[7]s -parentID %[9]s -spiffeID spiffe://%[1]s/me -selector unix:uid:%[10]d

  # be one of them: fetch it, watch it rotate
  %[6]s agent api fetch x509%[8]s
  %[6]s agent api watch%[8]s

  # look around
  %[6]s issuer entry show%[7]s
  %[6]s issuer agent list%[7]s

  # mutual TLS for a program that knows nothing about it
  %[6]s sidecar server -h

`, u.td.Name(), u.addr, u.paths.IssuerSocket(), u.paths.AgentSocket(), u.paths.State, me, issuerFlag, agentFlag, node, os.Getuid())
}

// self is how another terminal runs this program: by its name where that finds it, else by its path.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return "lanyard"
	}
	if found, err := exec.LookPath("lanyard"); err == nil {
		a, errA := os.Stat(found)
		b, errB := os.Stat(path)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return "lanyard"
		}
	}
	return quote(path)
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
