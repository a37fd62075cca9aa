package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests run the whole runner on a suite of their own (testdata/fake), with this test program in
// place of runsc. No container is needed, but the runner asks for root.

func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); {
	case name == "runner":
		main()
		os.Exit(0)
	case strings.HasPrefix(name, "runsc"):
		os.Exit(fakeRunsc(os.Args))
	}
	status := m.Run()
	if fakeFolder != "" {
		os.RemoveAll(fakeFolder)
	}
	os.Exit(status)
}

// fakeRunsc runs a container's program outside of any, with INSIDE set.
func fakeRunsc(args []string) int {
	if strings.HasSuffix(args[0], "-broken") {
		fmt.Println("this platform is broken")
		return 5
	}
	bundle := regexp.MustCompile(`--bundle=(\S+)`).FindStringSubmatch(strings.Join(args, "\n"))
	if bundle == nil {
		return 0 // runsc delete
	}
	var spec struct {
		Process struct{ Args, Env []string }
		Mounts  []struct{ Destination, Source string }
	}
	data, err := os.ReadFile(filepath.Join(bundle[1], "config.json"))
	if err == nil {
		err = json.Unmarshal(data, &spec)
	}
	if err != nil {
		fmt.Println(err)
		return 6
	}
	if spec.Process.Args[0] == "/guest" {
		fmt.Println("hello")
		return 0
	}
	cmd := exec.Command("", spec.Process.Args[1:]...)
	for _, m := range spec.Mounts {
		if m.Destination == spec.Process.Args[0] {
			cmd.Path = m.Source
		}
	}
	cmd.Env = append(spec.Process.Env, "INSIDE=yes")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 137*b2i(!exit.Exited()))
	}
	return 0
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

var (
	fakeFolder string
	buildFake  = sync.OnceValue(func() error {
		var err error
		if fakeFolder, err = os.MkdirTemp("", "sentrymm-fake-"); err != nil {
			return err
		}
		if _, err := goCommand(noContext, ".", "test", "-c", "-o", filepath.Join(fakeFolder, "fake.test"), "./testdata/fake"); err != nil {
			return err
		}
		if _, err := goCommand(noContext, ".", "build", "-o", filepath.Join(fakeFolder, "test2json"), "cmd/test2json"); err != nil {
			return err
		}
		for _, name := range []string{"runner", "runsc", "runsc-validate", "runsc-stock", "runsc-broken", "guest"} {
			if err := os.Symlink(os.Args[0], filepath.Join(fakeFolder, name)); err != nil {
				return err
			}
		}
		return nil
	})
)

// A ran is what a run of the runner left.
type ran struct {
	ok   bool
	err  error
	out  string
	json jsonReport
}

// fakeRun runs the runner on the fake suite. known is the text of known.json, or empty.
func fakeRun(t *testing.T, known string, args ...string) ran {
	t.Helper()
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "report.json")
	args = append(fakeArgs(t, known), append(args, "-json="+file)...)
	r := ran{}
	r.ok, r.err = command(t.Context(), args, &out)
	r.out = out.String()
	t.Logf("runner %s\n%s", strings.Join(args, " "), r.out)
	if r.err == nil {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &r.json))
		require.Equal(t, r.ok, r.json.OK)
	}
	return r
}

func fakeArgs(t *testing.T, known string) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the runner wants root for targets other than native")
	}
	require.NoError(t, buildFake())
	in := func(name string) string { return filepath.Join(fakeFolder, name) }
	args := []string{"-bin=fake=" + in("fake.test"), "-runsc=" + in("runsc"), "-validate=" + in("runsc-validate"),
		"-stock=" + in("runsc-stock"), "-guest=" + in("guest"), "-test2json=" + in("test2json"), "-targets=systrap"}
	if known != "" {
		file := filepath.Join(t.TempDir(), "known.json")
		require.NoError(t, os.WriteFile(file, []byte(known), 0o644))
		args = append(args, "-known="+file)
	}
	return args
}

// results are the tests of the first target with their results, "known" if that is known.
func (r ran) results() map[string]string {
	all := map[string]string{}
	for _, c := range r.json.Suites {
		if c.Target == r.json.Suites[0].Target {
			for _, test := range c.Tests {
				all[test.Name] = string(test.Result)
				if test.Known != nil {
					all[test.Name] = "known"
				}
			}
		}
	}
	return all
}

func (r ran) find(t *testing.T, name string) jsonTest {
	t.Helper()
	for _, test := range r.json.Suites[len(r.json.Suites)-1].Tests {
		if test.Name == name {
			return test
		}
	}
	t.Fatalf("no test %s", name)
	return jsonTest{}
}
