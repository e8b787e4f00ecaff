package kube

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
)

// importImage makes an image of a shell and gives it to containerd; there is no registry.
func (n *Node) importImage(name, script string) {
	n.Cluster.t.Helper()
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		n.Cluster.t.Fatalf("%v", err)
	}
	layer := archive(map[string][]byte{"bin/busybox": shell, "bin/sh": shell, "bin/sleep": shell, "bin/cat": shell, "tmp/empty": {}})
	config := encode(object{
		"architecture": "amd64", "os": "linux",
		"config": object{"Entrypoint": []string{"/bin/sh", "-c", script}, "Env": []string{"PATH=/bin", "NAME=" + name}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	manifest := encode([]object{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	file := n.stage.Path(n.stage.Unique("image") + ".tar")
	data := archive(map[string][]byte{"manifest.json": manifest, "config.json": config, "layer.tar": layer})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		n.Cluster.t.Fatalf("%v", err)
	}
	n.ctr("images", "import", file)
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and lists of them
	}
	return data
}

func archive(files map[string][]byte) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range files {
		// Writing to memory does not fail.
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg})
		_, _ = w.Write(data)
	}
	_ = w.Close()
	return out.Bytes()
}
