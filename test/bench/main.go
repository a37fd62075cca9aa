// Program bench measures memory calls under build/runsc, under a stock runsc and natively, one after the other
// in turns, and writes a report to build/bench: report.html, report.md, and all that was measured in raw.json.
//
//	make bench                   # all rows, on systrap and ptrace
//	make bench ARGS=-quick       # a look at it, in less than 3 minutes
//	make bench ARGS='-rows fault,single -platforms systrap'
//	build/bench/bench -summary DIR...     # of runs that were made with ARGS='-out DIR'
//
// An interrupt ends the measurements; the report then has what there is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	out       string
	runsc     string
	stock     string
	times     string
	load      string
	platforms []string
	rows      []string
	quick     bool
	limit     time.Duration
	rounds    int
	rowTime   time.Duration
	awake     bool
}

func main() {
	c := config{}
	platforms, rows := "", ""
	flag.StringVar(&c.out, "out", "build/bench", "the folder for the report")
	flag.StringVar(&c.runsc, "runsc", "build/runsc", "our runsc")
	flag.StringVar(&c.stock, "stock", "build/runsc-stock", "the runsc to compare with")
	flag.StringVar(&c.times, "times", "build/runsc-times", "our runsc with the build tag mmtimes, for the rows within")
	flag.StringVar(&c.load, "load", "build/bench/load", "the load program, a static one")
	flag.StringVar(&platforms, "platforms", "systrap,ptrace", "the platforms to measure on")
	flag.StringVar(&rows, "rows", "", "only these groups of rows, separated by commas: "+strings.Join(groupNames(), ", "))
	flag.BoolVar(&c.quick, "quick", false, "less than 3 minutes: short measurements, and without the slowest rows")
	flag.DurationVar(&c.limit, "limit", 0, "after the first round, measure nothing that would not be done within this time (18m, or 130s if quick)")
	flag.IntVar(&c.rounds, "rounds", 0, "at most so many rounds (0: as the time allows, or until everything can be told)")
	flag.DurationVar(&c.rowTime, "for", 0, "how long to measure a row (200ms, or 40ms if quick)")
	flag.BoolVar(&c.awake, "awake", true, "keep idle processors from sleeping, by way of "+latencyFile+": they take long to wake up on virtual machines, and now longer and now shorter")
	sum := flag.Bool("summary", false, "measure nothing: print what the runs say together whose folders are the arguments")
	flag.Parse()
	if *sum {
		if err := summary(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	c.platforms = split(platforms)
	c.rows = split(rows)
	if c.limit == 0 {
		c.limit = 18 * time.Minute
		if c.quick {
			c.limit = 130 * time.Second
		}
	}
	if c.rowTime == 0 {
		c.rowTime = 200 * time.Millisecond
		if c.quick {
			c.rowTime = 40 * time.Millisecond
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func run(ctx context.Context, c config) error {
	if os.Geteuid() != 0 || flag.NArg() != 0 {
		return errors.New("usage: bench [flags], as root: runsc's containers need that here; -h lists the flags")
	}
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return err
	}
	targets, err := newTargets(c)
	if err != nil {
		return err
	}
	defer targets.close()
	plan, err := newPlan(c, targets)
	if err != nil {
		return err
	}
	m := newMeasured(c)
	if c.awake {
		if stop, err := keepAwake(); err == nil {
			defer stop()
			m.Machine.Awake = true
		} else {
			fmt.Fprintln(os.Stderr, "bench: idle processors may sleep, and what is measured lies further apart:", err)
		}
	}
	interrupted := plan.run(ctx, c, m)
	if len(m.Rows) == 0 {
		return errors.Join(errors.New("nothing was measured"), interrupted)
	}
	if err := m.write(c.out); err != nil {
		return err
	}
	fmt.Printf("report: %s\n", filepath.Join(c.out, "report.html"))
	return interrupted
}
