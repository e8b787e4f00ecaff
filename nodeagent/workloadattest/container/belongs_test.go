package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// proc is a process of names: what its files and links say.
type proc map[string]string

func (p proc) PID() int { return 7 }

func (p proc) ReadFile(name string, _ int) ([]byte, error) { return []byte(p[name]), nil }

func (p proc) Readlink(name string) (string, error) {
	if p[name] == "" {
		return "", fs.ErrPermission
	}
	return p[name], nil
}

func (p proc) Check() error {
	if p["ended"] != "" {
		return errors.New("ended")
	}
	return nil
}

func (p proc) with(key, value string) proc {
	other := proc{key: value}
	for k, v := range p {
		if k != key {
			other[k] = v
		}
	}
	return other
}

func TestBelongs(t *testing.T) {
	agents, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("a1", 32)
	first := proc{"cgroup": "2:cpu:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/system.slice/x\n", "ns/mnt": "mnt:[1]", "ns/pid": "pid:[1]"}
	in := func(path string) proc {
		return first.with("cgroup", "2:cpu:"+path+"\n1:name=systemd:/docker/"+id+"\n0::/\n")
	}
	hostPID := first.with("ns/pid", agents)
	users := "/user.slice/user-1000.slice/user@1000.service/docker/" + id
	for name, test := range map[string]struct {
		p, first proc
		want     string // "": it belongs
	}{
		"itself":                       {first, first, ""},
		"docker exec":                  {in("/docker/" + id), first, ""},
		"below":                        {in("/docker/" + id + "/init.scope"), first, ""},
		"first below":                  {first, in("/docker/" + id + "/init.scope"), ""},
		"own mounts, as in a sandbox":  {first.with("ns/mnt", "mnt:[2]"), first, ""},
		"own PIDs":                     {first.with("ns/pid", "pid:[2]"), first, ""},
		"--pid=host":                   {hostPID, hostPID, ""},
		"no right to read namespaces":  {first.with("ns/mnt", ""), first, ""},
		"a user's subtree":             {in(users), first, "it is in " + users},
		"only one hierarchy":           {first.with("cgroup", "2:cpu:/docker/"+id+"\n1:name=systemd:"+users+"\n"), first, users},
		"a hierarchy less":             {first.with("cgroup", "2:cpu:/docker/"+id+"\n"), first, "not in that container"},
		"same beginning":               {in("/docker/" + id + "b"), first, "it is in"},
		"beside":                       {in("/docker"), first, "it is in"},
		"dots":                         {in("/docker/../docker/" + id), first, "it is in"},
		"neither namespace":            {first.with("ns/mnt", "mnt:[2]").with("ns/pid", "pid:[2]"), first, "neither a mount namespace"},
		"host process in --pid=host's": {hostPID.with("ns/mnt", "mnt:[2]"), hostPID, "neither a mount namespace"},
		"first of another":             {first, in("/docker/x").with("cgroup", "0::/docker/x\n"), "in no cgroup of that name"},
		"first ended":                  {first, first.with("ended", "yes"), "ended"},
		"nonsense":                     {first.with("cgroup", "docker\n"), first, "is not ID:controllers:/path"},
	} {
		err := Belongs(Container{ID: id}, test.p, test.first)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
