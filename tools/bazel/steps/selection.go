package main

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// selection makes the flags that select what to run, if that is not everything: Bazel's --test_filter, and
// one shard of many.
func (r *testRun) selection() ([]string, error) {
	filter := os.Getenv("TESTBRIDGE_TEST_ONLY")
	total, _ := strconv.Atoi(os.Getenv("TEST_TOTAL_SHARDS"))
	if total < 2 {
		if filter == "" {
			return nil, nil
		}
		return []string{"-test.run=" + filter}, nil
	}
	index, err := strconv.Atoi(os.Getenv("TEST_SHARD_INDEX"))
	if err != nil {
		return nil, fmt.Errorf("TEST_SHARD_INDEX: %w", err)
	}
	// So Bazel knows that we do not run everything in every shard.
	if status := os.Getenv("TEST_SHARD_STATUS_FILE"); status != "" {
		if err := os.WriteFile(status, nil, 0o644); err != nil {
			return nil, err
		}
	}
	// -test.list takes no subtests.
	top, inner, _ := strings.Cut(filter, "/")
	list := r.command("-test.list=" + cmp.Or(top, "."))
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the tests of %s: %w", r.name, err)
	}
	pattern := shard(strings.Fields(string(out)), index, total)
	if inner != "" {
		pattern += "/" + inner
	}
	return []string{"-test.run=" + pattern}, nil
}

// shard is a pattern for every total-th name.
func shard(names []string, index, total int) string {
	var mine []string
	for i, name := range names {
		if i%total == index {
			mine = append(mine, name)
		}
	}
	return "^(" + strings.Join(mine, "|") + ")$"
}
