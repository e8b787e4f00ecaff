package sds

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(helperSocket); path != "" {
		fmt.Println(helper(path))
		return
	}
	os.Exit(m.Run())
}

func helperCommand(t testing.TB, binary, env string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = []string{env}
	return cmd
}
