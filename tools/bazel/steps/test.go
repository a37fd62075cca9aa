package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A testRun is a test binary and how to run it.
type testRun struct {
	name      string
	dir       string
	binary    string
	test2json string
	list      string
	env       settings
	flags     []string // of the binary, from the command line
}

// test runs a test binary as `go test` would, and answers as Bazel wants a test to: which shard to run,
// and where to leave results, stands in the environment.
func test(args []string, out io.Writer) (err error) {
	r, err := parseTest(args)
	if err != nil {
		return err
	}
	tree, err := os.MkdirTemp(os.Getenv("TEST_TMPDIR"), "tree-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tree)) }()
	files, err := readList(r.list)
	if err != nil {
		return err
	}
	if err := copyTree(tree, files); err != nil {
		return fmt.Errorf("copying the declared files to %s: %w", tree, err)
	}
	r.dir = filepath.Join(tree, r.dir)
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}

	selected, err := r.selection()
	if err != nil {
		return err
	}
	report, runErr := r.run(selected, out)
	if report != nil {
		runErr = errors.Join(runErr, report.write(os.Getenv("XML_OUTPUT_FILE")))
		fmt.Fprintln(out, report.summary())
	}
	return runErr
}

func parseTest(args []string) (*testRun, error) {
	r := &testRun{}
	flags := flag.NewFlagSet("steps test", flag.ContinueOnError)
	flags.StringVar(&r.name, "name", "", "name of the suite in the results")
	flags.StringVar(&r.dir, "dir", "", "folder of the package below the root of the repository")
	flags.StringVar(&r.binary, "binary", "", "the test binary")
	flags.StringVar(&r.test2json, "test2json", "", "the program test2json that comes with Go")
	flags.StringVar(&r.list, "files", "", "file with a list of the files the tests read")
	flags.Var(&r.env, "env", "a variable for the tests, as NAME=VALUE")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	r.flags = flags.Args()
	for _, path := range []*string{&r.binary, &r.test2json} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	return r, nil
}

// run runs the binary with more flags, and reads and shows what it says. The report is there even if a test failed.
func (r *testRun) run(selected []string, out io.Writer) (*report, error) {
	cmd := r.command(slices.Concat([]string{"-test.v=test2json", "-test.paniconexit0"}, timeLimit(), selected)...)
	convert := exec.Command(r.test2json, "-p", r.name)
	convert.Stderr = os.Stderr
	// On a timeout Bazel signals our process group. What the tests have said by then must get through.
	convert.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := convert.StdinPipe()
	if err != nil {
		return nil, err
	}
	events, err := convert.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := convert.Start(); err != nil {
		return nil, err
	}
	// Nobody reads them: the tests get them too, and we end when those do. Ignored signals would be
	// ignored by the tests as well.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	cmd.Stdout, cmd.Stderr = input, input
	// A process that a test left behind must not keep us.
	cmd.WaitDelay = 10 * time.Second
	ended := make(chan error, 1)
	go func() {
		err := cmd.Run()
		ended <- errors.Join(err, input.Close())
	}()
	report, readErr := readEvents(events, out, r.verbose())
	runErr := <-ended
	report.name, report.err = r.name, runErr
	if runErr == nil && len(report.tests) == 0 && len(selected) == 0 {
		runErr = fmt.Errorf("%s has no test that could fail", r.name)
	}
	return report, errors.Join(runErr, readErr, convert.Wait())
}

func (r *testRun) command(flags ...string) *exec.Cmd {
	cmd := exec.Command(r.binary, append(flags, r.flags...)...)
	cmd.Dir = r.dir
	cmd.Env = append(testEnv(os.Environ()), r.env...)
	return cmd
}

func (r *testRun) verbose() bool {
	return slices.ContainsFunc(r.flags, func(f string) bool { return strings.HasPrefix(f, "-test.v") })
}

// testEnv leaves out what Bazel says to us. A test of something that runs under Bazel too would take it
// for its own.
func testEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		for _, ours := range []string{"TEST_", "TESTBRIDGE_", "XML_OUTPUT_FILE=", "RUNFILES_", "JAVA_RUNFILES=", "PYTHON_RUNFILES="} {
			if strings.HasPrefix(e, ours) {
				return true
			}
		}
		return false
	})
}

// timeLimit lets the binary end shortly before Bazel ends it, because it can say where it was.
func timeLimit() []string {
	seconds, err := strconv.Atoi(os.Getenv("TEST_TIMEOUT"))
	if err != nil || seconds == 0 {
		return nil // by hand: Bazel sets it
	}
	return []string{fmt.Sprintf("-test.timeout=%v", time.Duration(seconds)*time.Second*9/10)}
}
