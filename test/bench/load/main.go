// Program load does memory operations and measures them: natively, or as the only program of a
// container. The bench runs it; for a look at one row:
//
//	load -rows fault/populate-munmap-64m -for 2s
//
// It says a line of JSON (sample.Result) a row. It is one static program that needs no files.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// A row is something to measure. It says its results itself; there may be several.
type row struct {
	name string
	run  func(b *bench)
}

// A bench is what rows work with.
type bench struct {
	row  string        // the name of what runs
	time time.Duration // for each row
	out  *json.Encoder
}

func (b *bench) say(r sample.Result) {
	check(b.out.Encode(r), "writing a result")
}

func rows() []row {
	var all []row
	all = append(all, singleRows()...)
	all = append(all, stormRows()...)
	all = append(all, scaleRows()...)
	return append(all, costRows()...)
}

func main() {
	names := flag.String("rows", "single,fault,io,maps-10,maps-1000,third,scale", "which rows: names, groups or patterns, separated by commas")
	limit := flag.Duration("for", 200*time.Millisecond, "how long each is measured")
	warm := flag.Duration("warm", 0, "how long to make system calls before: see warmUp")
	list := flag.Bool("list", false, "list the rows")
	exit := flag.Bool("exit", false, "do nothing, successfully")
	storm := flag.String("storm", "", "for the program itself: be this storm, beside the process that began this one")
	flag.Parse()
	if *exit {
		return
	}
	// What the runtime does with memory by itself is not what is measured.
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	if *storm != "" {
		runElsewhere(*storm)
		return
	}
	b := &bench{time: *limit, out: json.NewEncoder(os.Stdout)}
	warmUp(*warm)
	found := false
	for _, r := range rows() {
		if *list {
			fmt.Println(r.name)
			continue
		}
		for _, pattern := range strings.Split(*names, ",") {
			if ok, err := match(pattern, r.name); err != nil {
				check(err, "pattern "+pattern)
			} else if ok {
				found = true
				b.row = r.name
				r.run(b)
				break
			}
		}
	}
	if !found && !*list {
		check(fmt.Errorf("no row is called %s; -list lists them", *names), "load")
	}
}

// warmUp makes system calls for d. Whether its threads wait for each other in loops or asleep, systrap tries again and again,
// and what it saw while the container came up holds it back for most of a second.
func warmUp(d time.Duration) {
	for begun := time.Now(); time.Since(begun) < d; {
		syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
}

// check ends the program if something failed that never should: what would be measured then?
func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "load: %s: %v\n", what, err)
		os.Exit(1)
	}
}

// match is path.Match, where a pattern stands for all that begins with it and a slash, too.
func match(pattern, name string) (bool, error) {
	if strings.HasPrefix(name, pattern+"/") {
		return true, nil
	}
	return path.Match(pattern, name)
}
