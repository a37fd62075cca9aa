// Program guest runs inside a container, or natively, and says what it saw.
//
//	guest replace      threads replace mappings with MAP_FIXED while others read them
//	guest forkexec     fork and exec in a loop, several at once
//	guest serve        like replace without an end; SIGUSR1 makes it check its memory and exit
//	guest hello        says hello; the smallest sign of life
//
// It exits 1 when it saw something that Linux promises never to show. It is built statically,
// so a root file system with this one file is enough to run it.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		os.Args = append(os.Args, "replace")
	}
	command, args := os.Args[1], os.Args[2:]
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	replacements := flags.Int("replacements", 1000, "replacements each writer makes")
	writers := flags.Int("writers", 4, "threads that replace mappings, each in a region of its own")
	readers := flags.Int("readers", 4, "threads that read the regions, in each way there is")
	var kinds kinds
	flags.BoolVar(&kinds.moves, "mremap", false, "also move mappings over the regions. "+
		"Not for a run without a sandbox: Linux unmaps the destination first, and /proc/self/maps shows it")
	flags.BoolVar(&kinds.gaps, "gaps", false, "make gaps on purpose, to see that they are found")
	children := flags.Int("children", 200, "processes to start")
	status := flags.Int("exit", 0, "hello: exit with this status")
	flags.Parse(args)

	var err error
	switch command {
	case "replace":
		err = replace(*writers, *readers, *replacements, kinds)
	case "forkexec":
		err = forkExec(*children)
	case childCommand:
		os.Exit(child(flags.Args()))
	case "serve":
		err = serve(*writers, *readers, kinds)
	case "hello":
		fmt.Println("hello")
		os.Exit(*status)
	default:
		err = fmt.Errorf("no command %q: want replace, forkexec, serve or hello", command)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}
