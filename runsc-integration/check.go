package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

func installCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("install", flag.ContinueOnError)
	if err := flags.Parse(args); err != nil {
		return quiet(err)
	}
	if err := checkOS(runtime.GOOS); err != nil {
		return err
	}
	return installMissing(ctx)
}

// checkCommand prepares what the tests of this program need and runs them so that none is skipped. What
// they check is theirs: containers_test.go, traps_test.go.
func checkCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	platforms := flags.String("platforms", "systrap ptrace", "platforms to check, separated by spaces")
	pattern := flags.String("run", ".", "run only tests that match, as go test -run")
	var t target
	flags.StringVar(&t.tags, "tags", "", "check a runsc with these build tags; mmvalidate checks the memory manager after every operation")
	flags.BoolVar(&t.stock, "stock", false, "check an unmodified runsc")
	if err := flags.Parse(args); err != nil {
		return quiet(err)
	}
	for _, err := range []error{checkOS(runtime.GOOS), checkArch(runtime.GOARCH), checkRoot(os.Geteuid())} {
		if err != nil {
			return err
		}
	}
	p, err := findProject(ctx)
	if err != nil {
		return err
	}
	if err := installMissing(ctx); err != nil {
		return err
	}
	runsc, err := p.buildRunsc(ctx, t)
	if err != nil {
		return err
	}
	return p.runTests(ctx, *pattern, runscVar+"="+runsc, platformsVar+"="+*platforms, mandatoryVar+"=yes")
}

// The variables by which the tests of this package are told what to test.
const (
	// Set to fail instead of skip where a container test cannot run.
	mandatoryVar = "SENTRYMM_CONTAINERS"
	// The runsc to test, in place of build/runsc.
	runscVar = "SENTRYMM_RUNSC"
	// The platforms to test it on, separated by spaces.
	platformsVar = "SENTRYMM_PLATFORMS"
)

// runTests runs go test, shows what it says, and closes with a table.
func (p *project) runTests(ctx context.Context, pattern string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=25m", "-run="+pattern, "./runsc-integration/...")
	cmd.Dir = p.root
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	table, readErr := readTests(events, os.Stdout)
	err = cmd.Wait()
	table.print(os.Stdout)
	if err != nil {
		err = fmt.Errorf("go test: %w", err)
	}
	return errors.Join(readErr, err)
}

// A testTable has what became of each test in containers, by platform.
type testTable struct {
	platforms []string
	tests     []string
	results   map[[2]string]string // by platform and test
}

// A testEvent is a line of `go test -json`.
type testEvent struct {
	Action  string
	Test    string
	Output  string
	Elapsed float64
}

// readTests copies the text of a test run and notes the results of TEST/PLATFORM/NAME.
func readTests(events io.Reader, text io.Writer) (*testTable, error) {
	t := &testTable{results: map[[2]string]string{}}
	for lines := json.NewDecoder(events); ; {
		var e testEvent
		if err := lines.Decode(&e); err != nil {
			if err == io.EOF {
				err = nil
			}
			return t, err
		}
		if e.Action == "output" && !strings.HasPrefix(e.Output, "=== ") {
			if _, err := io.WriteString(text, e.Output); err != nil {
				return t, err
			}
		}
		parts := strings.SplitN(e.Test, "/", 3)
		if len(parts) == 3 && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			t.add(parts[1], strings.TrimPrefix(parts[0], "Test")+" "+parts[2], e.result())
		}
	}
}

// result is how a test went, and how long that took if it took long enough to tell.
func (e testEvent) result() string {
	if e.Elapsed < 0.05 {
		return e.Action
	}
	return fmt.Sprintf("%s %.1fs", e.Action, e.Elapsed)
}

func (t *testTable) add(platform, test, result string) {
	if !slices.Contains(t.platforms, platform) {
		t.platforms = append(t.platforms, platform)
	}
	if !slices.Contains(t.tests, test) {
		t.tests = append(t.tests, test)
	}
	t.results[[2]string{platform, test}] = result
}

func (t *testTable) print(w io.Writer) {
	columns := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(columns, "in a container\t%s\n", strings.Join(t.platforms, "\t"))
	for _, test := range t.tests {
		fmt.Fprint(columns, test)
		for _, platform := range t.platforms {
			fmt.Fprint(columns, "\t", t.results[[2]string{platform, test}])
		}
		fmt.Fprintln(columns)
	}
	columns.Flush()
}
