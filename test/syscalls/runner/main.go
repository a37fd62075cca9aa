// Program runner runs the suites of system calls: each natively, where the machine's kernel is the
// reference, and then in containers, where every test has to pass and to say the same. It shows a table
// of suites and targets, and for each difference the two transcripts side by side.
//
//	runner                                    all suites, natively and on systrap, ptrace, kvm, validate
//	runner -suites mmap,fork -targets stock   two suites on an unmodified runsc
//	runner -bin mmap=PATH -runsc PATH ...     suites that are built already; needs no repository
//
// It exits with 0 if all is as expected, with 1 if not, and with 2 if it could not find out. What is
// expected to differ stands in one file, known.json (known.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	suites     []string
	targets    []string
	pattern    string            // for -test.run
	bins       map[string]string // programs of suites that are built already
	runscs     map[string]string // by the name of the build: runsc, runsc-validate, runsc-stock
	guest      string
	known      string
	junit      string
	json       string
	test2json  string
	long       bool
	jobs       int
	timeout    time.Duration
	startLimit time.Duration
	verbose    bool
	shard      shard
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

// command is the whole program. It reports whether all is as expected, or why that is not known.
func command(ctx context.Context, args []string, out io.Writer) (ok bool, err error) {
	o, err := parse(args, out)
	if err != nil {
		return false, err
	}
	folder, err := os.MkdirTemp("", "sentrymm-syscalls-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	r, err := prepare(ctx, o, folder, out)
	if err != nil {
		return false, err
	}
	began := time.Now()
	if err := r.all(ctx); err != nil {
		return false, err
	}
	rep := r.judge(time.Since(began))
	if err := rep.write(o.json, rep.writeJSON); err != nil {
		return false, err
	}
	if err := rep.write(o.junit, rep.writeJUnit); err != nil {
		return false, err
	}
	rep.print(out, o.verbose)
	return rep.ok(), nil
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{bins: map[string]string{}, runscs: map[string]string{}}
	flags := flag.NewFlagSet("runner", flag.ContinueOnError)
	flags.SetOutput(out)
	suites := flags.String("suites", "", "run only these suites, separated by commas")
	targets := flags.String("targets", strings.Join(usualTargets, ","), "where to run them, separated by commas; also: stock")
	flags.StringVar(&o.pattern, "run", "", "run only tests that match this expression, as go test -run")
	flags.Func("bin", "`suite=path` of a suite's program; may be repeated; nothing is built then", func(text string) error {
		name, path, found := strings.Cut(text, "=")
		if !found || name == "" || path == "" {
			return errors.New("want suite=path")
		}
		o.bins[name] = path
		return nil
	})
	for _, build := range builds {
		usage := fmt.Sprintf("this program as %s (default build/%s)", build, build)
		flags.Func(strings.TrimPrefix(build, "runsc-"), usage, func(path string) error {
			o.runscs[build] = path
			return nil
		})
	}
	flags.StringVar(&o.guest, "guest", "", "a static build of runsc-integration/guest (default: it is built)")
	flags.StringVar(&o.known, "known", "", "the file of known differences (default test/syscalls/known.json; none with -bin)")
	flags.StringVar(&o.junit, "junit", "", "write a JUnit report to this file")
	flags.StringVar(&o.json, "json", "", "write a report with all transcripts that differ to this file")
	flags.StringVar(&o.test2json, "test2json", "", "Go's test2json program (default: it is built)")
	flags.BoolVar(&o.long, "long", false, "run tests of endurance at their full length")
	flags.IntVar(&o.jobs, "j", 2, "how many suites run at the same time")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long a suite may take on a target")
	flags.DurationVar(&o.startLimit, "start-limit", 10*time.Second, "how long a platform may take to come up")
	flags.BoolVar(&o.verbose, "v", false, "show known differences and skipped tests too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.suites, o.targets = list(*suites), list(*targets)
	var err error
	if o.shard, err = shardFromEnv(); err != nil {
		return o, err
	}
	return o, o.check(flags.Args())
}

// list takes a list apart at commas and spaces.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unknown argument %q: all there is to say is said by flags, see -h", rest[0])
	}
	for _, name := range o.targets {
		if name != native && !slices.Contains(sandboxed, name) {
			return fmt.Errorf("-targets: no target %q: there are %s and %s", name, native, strings.Join(sandboxed, ", "))
		}
	}
	if len(o.targets) == 0 {
		return fmt.Errorf("-targets: name at least one of %s, %s", native, strings.Join(sandboxed, ", "))
	}
	if _, err := regexp.Compile(o.pattern); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if o.jobs < 1 {
		return fmt.Errorf("-j %d: want 1 or more", o.jobs)
	}
	if o.timeout < time.Second {
		return fmt.Errorf("-timeout %v: want a second or more", o.timeout)
	}
	for _, name := range o.targets {
		if name != native && os.Geteuid() != 0 {
			return fmt.Errorf("user id is %d: running containers needs root; run this with sudo, or with -targets native", os.Geteuid())
		}
	}
	return nil
}

// findRepository is the folder with this module's go.mod, at or above the one we are in.
func findRepository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && regexp.MustCompile(`(?m)^module sentrymm$`).Match(data) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in the sentrymm checkout: go there, or name what is built already with -bin, -runsc, -guest and -test2json", dir)
		}
	}
}
