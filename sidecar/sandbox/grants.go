package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What is granted on a directory and all below.
const (
	reading  = landlock.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSReadDir)
	writing  = reading | landlock.AccessFSSet(llsys.AccessFSWriteFile|llsys.AccessFSTruncate|llsys.AccessFSRemoveFile|llsys.AccessFSRemoveDir|llsys.AccessFSMakeReg|llsys.AccessFSMakeDir|llsys.AccessFSMakeSym)
	sockets  = landlock.AccessFSSet(llsys.AccessFSMakeSock | llsys.AccessFSRemoveFile | llsys.AccessFSMakeDir)
	onFiles  = landlock.AccessFSSet(llsys.AccessFSReadFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate)
	rootPath = string(filepath.Separator)
)

// grants are Rules as the kernel takes them.
type grants struct {
	paths    map[string]landlock.AccessFSSet // existing files and directories, without links
	bind     map[uint16]bool                 // nil: any
	connect  map[uint16]bool                 // nil: any
	abstract bool                            // abstract sockets are dialled
	problems []string
}

// compile looks at the file system as it is now.
func compile(r Rules) *grants {
	g := &grants{
		paths: map[string]landlock.AccessFSSet{}, bind: map[uint16]bool{}, connect: map[uint16]bool{dnsPort: true},
	}
	g.system()
	for _, file := range r.ReadFiles {
		g.readFile(file)
	}
	for _, dir := range r.ReadDirs {
		g.allow(dir, reading)
		g.links(dir)
	}
	for _, dir := range r.WriteDirs {
		g.writeDir(dir)
	}
	for _, s := range r.Sockets {
		g.dialled(s)
	}
	for _, address := range r.Bind {
		g.bound(address)
	}
	for _, address := range r.Connect {
		g.connected(address)
	}
	if r.AnyConnect {
		g.connect = nil
	}
	return g
}

// system grants what Go's libraries read at any time: how names resolve, what time it is, whom the system trusts, how many processors there
// are, and what this process uses.
func (g *grants) system() {
	for _, dir := range []string{
		"/etc", "/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu",
		"/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/var/lib/ca-certificates",
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", // the C library's name services, in builds with cgo
	} {
		g.allow(dir, reading)
	}
	for _, file := range []string{
		"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime",
		"/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/tls/cacert.pem",
	} {
		g.links(file)
	}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		g.readFile(file)
	}
	for _, dir := range filepath.SplitList(os.Getenv("SSL_CERT_DIR")) {
		g.allow(dir, reading)
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			g.links(filepath.Join(dir, e.Name()))
		}
	}
	for _, file := range []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"} {
		g.allow(file, onFiles)
	}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		g.allow(dir, writing)
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		if proxy := os.Getenv(name); proxy != "" {
			g.connected(withScheme(proxy))
		}
	}
	g.dialled(os.Getenv("NOTIFY_SOCKET"))
}

// allow grants rights on path if it exists; the file system's root is never granted.
func (g *grants) allow(path string, rights landlock.AccessFSSet) bool {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if path == "" || err != nil || real == rootPath {
		return false
	}
	info, err := os.Stat(real)
	if err != nil {
		return false
	}
	if !info.IsDir() {
		rights &= onFiles
	}
	g.paths[real] |= rights
	return true
}

// readFile grants reading what is in the directory of file, and where its links lead.
func (g *grants) readFile(file string) {
	if file == "" {
		return
	}
	if dir := filepath.Dir(file); !g.allow(dir, reading) && !g.allow(file, reading) {
		g.problems = append(g.problems, fmt.Sprintf("%s can't be read once it is there: its directory is missing", file))
	}
	g.links(file)
}

// maxLinks is how many links a path may go through, as the kernel has it (path_resolution(7)).
const maxLinks = 40

// links grants reading the parents of what path's links point to, so that they can be pointed at a neighbour later, and of what path is in
// the end. The file system's root is no such parent.
func (g *grants) links(path string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	done, todo := rootPath, strings.Split(path, rootPath)
	for followed := 0; len(todo) > 0 && followed < maxLinks; {
		next := filepath.Join(done, todo[0])
		todo = todo[1:]
		target, err := os.Readlink(next)
		if err != nil {
			done = next // not a link, or not there
			continue
		}
		followed++
		if !filepath.IsAbs(target) {
			target = filepath.Join(done, target)
		}
		g.allow(filepath.Dir(target), reading)
		done, todo = rootPath, append(strings.Split(target, rootPath), todo...)
	}
	if info, err := os.Stat(done); err == nil && !info.IsDir() {
		g.allow(filepath.Dir(done), reading)
	}
}

func (g *grants) writeDir(dir string) {
	if dir == "" {
		return
	}
	if err := os.MkdirAll(dir, 0o700); err != nil || !g.allow(dir, writing) {
		g.problems = append(g.problems, fmt.Sprintf("%s can't be written to: it can't be made now: %v", dir, err))
	}
}

// dialled notes a UNIX socket's path or abstract name.
func (g *grants) dialled(socket string) {
	if strings.HasPrefix(strings.TrimPrefix(socket, "unix:"), "@") {
		g.abstract = true
	}
}

// boundSocket grants making and removing a UNIX socket, and those of its directories that are missing.
func (g *grants) boundSocket(path string) {
	dir := filepath.Dir(path)
	for !g.allow(dir, sockets) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
}

// landlockRules returns what is granted of what config takes away.
func (g *grants) landlockRules(config landlock.Config) []landlock.Rule {
	var rules []landlock.Rule
	for path, rights := range g.paths {
		rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
	}
	if config.HandledAccessNet&llsys.AccessNetBindTCP != 0 {
		for port := range g.bind {
			rules = append(rules, landlock.BindTCP(port))
		}
	}
	if config.HandledAccessNet&llsys.AccessNetConnectTCP != 0 {
		for port := range g.connect {
			rules = append(rules, landlock.ConnectTCP(port))
		}
	}
	return rules
}
