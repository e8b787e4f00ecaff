// Command lanyard-sidecar is the sidecar alone, for images: "lanyard sidecar" without the word. It links no other role.
package main

import (
	"context"
	"os"

	"github.com/lanyard-mtls/lanyard/cmd/internal/sidecarcmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func main() {
	sidecarcmd.SurviveHangups()
	env := cli.OSEnv(cli.Lanyard, os.Exit)
	os.Exit(cli.Execute(context.Background(), env, sidecarcmd.Fill(env, cli.Root(env, "lanyard-sidecar", sidecarcmd.Long)), os.Args[1:]))
}
