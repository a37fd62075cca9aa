// compare generates programs of memory system calls from a seed, runs each natively and in a sandbox,
// and compares what they observe after every step. A difference is shrunk to the smallest program that
// still shows it, and printed as a test.
//
//	compare -programs 1000            1000 programs, from a seed that it prints
//	compare -for 1h -seed 7           an hour of programs 7, 8, 9, ...
//	compare -seed 7 -programs 1 -v    one program again, step by step
//	compare -replay testdata/*.txt    programs from files
//
// It exits with status 1 if there was a difference, and with 2 if it could not do its work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	seed     uint64
	programs int
	steps    int
	duration time.Duration
	platform string
	runsc    string
	engine   string
	replay   []string
	save     string
	most     int
	parallel int
	shrink   bool
	verbose  bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	differences, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	case differences > 0:
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", 0, "seed of the first program; the others have the numbers after it. 0 chooses one")
	f.IntVar(&o.programs, "programs", 0, "how many programs to run; 0 is as many as there is time for")
	f.IntVar(&o.steps, "steps", 200, "steps of a program")
	f.DurationVar(&o.duration, "for", 0, "for how long to begin programs; 0 is until -programs ran")
	f.StringVar(&o.platform, "platform", "systrap", "runsc's platform, or native to compare this machine with itself")
	f.StringVar(&o.runsc, "runsc", "build/runsc", "the runsc to run containers with")
	f.StringVar(&o.engine, "engine", "", "the guest program; built if not given")
	f.StringVar(&o.save, "save", "", "folder for the programs that showed a difference")
	f.IntVar(&o.most, "differences", 10, "stop after so many differences")
	f.IntVar(&o.parallel, "j", 2, "programs at a time")
	f.BoolVar(&o.shrink, "shrink", true, "shrink programs that show a difference")
	f.BoolVar(&o.verbose, "v", false, "print every step and its result")
	replay := f.Bool("replay", false, "run the programs in the files that follow the flags")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.replay = f.Args()
	switch {
	case *replay == (len(o.replay) == 0):
		return o, errors.New("files are for -replay, and -replay needs some: compare -h")
	case o.programs < 0 || o.steps < 1 || o.parallel < 1 || o.most < 1:
		return o, errors.New("numbers have to be positive: compare -h")
	case o.programs == 0 && o.duration == 0 && !*replay:
		o.programs = 100
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixMilli())
	}
	if o.save != "" {
		return o, os.MkdirAll(o.save, 0o755)
	}
	return o, nil
}
