// Command lanyard-agent is the node agent alone, for images: "lanyard agent" without the word. It links no other role, but for the SDS it serves.
package main

import (
	"context"
	"os"

	"github.com/lanyard-mtls/lanyard/cmd/internal/agentcmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func main() {
	env := cli.OSEnv(cli.Lanyard, os.Exit)
	os.Exit(cli.Execute(context.Background(), env, agentcmd.Fill(env, cli.Root(env, "lanyard-agent", agentcmd.Long)), os.Args[1:]))
}
