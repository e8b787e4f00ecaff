// Command lanyard-issuer is the issuer alone, for images: "lanyard issuer" without the word. It links no other role.
package main

import (
	"context"
	"os"

	"github.com/lanyard-mtls/lanyard/cmd/internal/issuercmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func main() {
	env := cli.OSEnv(cli.Lanyard, os.Exit)
	os.Exit(cli.Execute(context.Background(), env, issuercmd.Fill(env, cli.Root(env, "lanyard-issuer", issuercmd.Long)), os.Args[1:]))
}
