// Command lanyard-sds is the sds alone, for images: "lanyard sds" without the word. It links no other role.
package main

import (
	"context"
	"os"

	"github.com/lanyard-mtls/lanyard/cmd/internal/sdscmd"
	"github.com/lanyard-mtls/lanyard/internal/cli"
)

func main() {
	env := cli.OSEnv(cli.Lanyard, os.Exit)
	os.Exit(cli.Execute(context.Background(), env, sdscmd.Fill(env, cli.Root(env, "lanyard-sds", sdscmd.Long)), os.Args[1:]))
}
