package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A suite is a package of tests of one subject below test/syscalls.
type suite struct {
	name  string
	pkg   string   // its import path; unknown if it was built by others
	bin   string   // its test program: static, so that it runs in an empty root file system
	tests []string // its top-level tests
}

const (
	suitesFolder = "test/syscalls"
	suitesPath   = "sentrymm/" + suitesFolder
	kitPath      = suitesPath + "/kit"
)

// noSuites are the folders below test/syscalls that may have tests with kit and are no suites.
var noSuites = []string{"kit", "runner", "compare"}

// discover finds the suites: the packages below test/syscalls whose tests import kit.
func discover(ctx context.Context, repository string, names []string) ([]*suite, error) {
	where := []string{"./" + suitesFolder + "/..."}
	if len(names) > 0 {
		// Only these, so that another one that does not compile is no obstacle.
		where = nil
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(repository, suitesFolder, name)); err != nil {
				return nil, fmt.Errorf("-suites: no suite %q: %w", name, err)
			}
			where = append(where, "./"+path.Join(suitesFolder, name))
		}
	}
	out, err := goCommand(ctx, repository, append([]string{"list", "-json=ImportPath,TestImports,XTestImports"}, where...)...)
	if err != nil {
		return nil, err
	}
	var found []*suite
	for packages := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath                string
			TestImports, XTestImports []string
		}
		if err := packages.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		name := strings.TrimPrefix(p.ImportPath, suitesPath+"/")
		if slices.Contains(append(p.TestImports, p.XTestImports...), kitPath) && !slices.Contains(noSuites, name) {
			found = append(found, &suite{name: name, pkg: p.ImportPath})
		}
	}
	if len(found) == 0 || len(names) > len(found) {
		return nil, fmt.Errorf("%s: of %d folders only %d have tests that import %s", suitesFolder, len(where), len(found), kitPath)
	}
	return found, nil
}

// build builds the programs of suites, all with one go command, in a folder of the repository.
func build(ctx context.Context, repository string, suites []*suite) error {
	folder := filepath.Join(repository, "build", "syscalls")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	// A trailing slash: the go command names the programs after the packages.
	args := []string{"test", "-c", "-trimpath", "-o", folder + "/"}
	bins := map[string]string{}
	for _, s := range suites {
		s.bin = filepath.Join(folder, path.Base(s.name)+".test")
		if other, taken := bins[s.bin]; taken {
			return fmt.Errorf("suites %s and %s would have one program: name one of them differently", other, s.name)
		}
		bins[s.bin] = s.name
		args = append(args, s.pkg)
	}
	_, err := goCommand(ctx, repository, args...)
	return err
}

// goCommand runs the go command in the repository for static programs, and returns what it printed.
func goCommand(ctx context.Context, repository string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s%s", args[0], err, errs.Bytes(), out.Bytes())
	}
	return out.Bytes(), nil
}

// given are the suites whose programs the command line names.
func given(bins map[string]string, names []string) ([]*suite, error) {
	var suites []*suite
	for name, bin := range bins {
		// The file itself, not a link to it: it is mounted into containers.
		real, err := filepath.EvalSymlinks(bin)
		if err != nil {
			return nil, fmt.Errorf("-bin %s=%s: %w", name, bin, err)
		}
		if real, err = filepath.Abs(real); err != nil {
			return nil, err
		}
		if len(names) == 0 || slices.Contains(names, name) {
			suites = append(suites, &suite{name: name, bin: real})
		}
	}
	for _, name := range names {
		if bins[name] == "" {
			return nil, fmt.Errorf("-suites: no program for suite %q: name it with -bin %s=PATH", name, name)
		}
	}
	slices.SortFunc(suites, func(a, b *suite) int { return strings.Compare(a.name, b.name) })
	return suites, nil
}

// list asks the suite's program for its top-level tests.
func (s *suite) list(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, s.bin, "-test.list=.").CombinedOutput()
	if err != nil {
		return fmt.Errorf("suite %s: %s -test.list: %w\n%s", s.name, s.bin, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "Test") {
			s.tests = append(s.tests, name)
		}
	}
	if len(s.tests) == 0 {
		return fmt.Errorf("suite %s has no test: %s -test.list names none", s.name, s.bin)
	}
	return nil
}

// A shard is one of several parts of the tests. Every top-level test is in exactly one.
type shard struct {
	index, total int
}

// shardFromEnv is the part that Bazel wants this process to run. Bazel is told that we know of shards
// by a file that we touch.
func shardFromEnv() (shard, error) {
	whole := shard{0, 1}
	total := os.Getenv("TEST_TOTAL_SHARDS")
	if total == "" {
		return whole, nil
	}
	if file := os.Getenv("TEST_SHARD_STATUS_FILE"); file != "" {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			return whole, fmt.Errorf("TEST_SHARD_STATUS_FILE: %w", err)
		}
	}
	n, err1 := strconv.Atoi(total)
	i, err2 := strconv.Atoi(os.Getenv("TEST_SHARD_INDEX"))
	if err1 != nil || err2 != nil || n < 1 || i < 0 || i >= n {
		return whole, fmt.Errorf("TEST_SHARD_INDEX=%s of TEST_TOTAL_SHARDS=%s is no shard", os.Getenv("TEST_SHARD_INDEX"), total)
	}
	return shard{i, n}, nil
}

// others are the tests that are not in this shard.
func (sh shard) others(tests []string) []string {
	var others []string
	for i, name := range tests {
		if i%sh.total != sh.index {
			others = append(others, name)
		}
	}
	return others
}
