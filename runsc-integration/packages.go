package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// neededPrograms are what the tests run, and Debian's packages that bring them.
var neededPrograms = []struct {
	program  string
	packages []string
}{
	{"gcc", []string{"gcc", "libc6-dev"}}, // go test -race links with cgo
	{"java", []string{"default-jdk-headless"}},
	{"javac", []string{"default-jdk-headless"}},
	{"node", []string{"nodejs"}},
	{"python3", []string{"python3"}},
}

// missingPackages lists the packages of programs that are not on the PATH, each once.
func missingPackages() (programs, packages []string) {
	for _, n := range neededPrograms {
		if _, err := exec.LookPath(n.program); err != nil {
			programs = append(programs, n.program)
			packages = append(packages, n.packages...)
		}
	}
	slices.Sort(packages)
	return programs, slices.Compact(packages)
}

// installMissing installs what is missing with apt-get, or says what is missing where there is none.
func installMissing(ctx context.Context) error {
	programs, packages := missingPackages()
	if len(packages) == 0 {
		return nil
	}
	byHand := fmt.Errorf("these programs are missing: %s: install them (Debian: apt-get install %s)",
		strings.Join(programs, ", "), strings.Join(packages, " "))
	if _, err := exec.LookPath("apt-get"); err != nil {
		return byHand
	}
	fmt.Fprintf(os.Stderr, "installing %s\n", strings.Join(packages, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w; %w", args[0], err, byHand)
		}
	}
	if programs, _ := missingPackages(); len(programs) > 0 {
		return fmt.Errorf("apt-get installed %s, but there is still no %s on the PATH", strings.Join(packages, " "), strings.Join(programs, ", "))
	}
	return nil
}
