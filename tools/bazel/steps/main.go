// Program steps does what the actions of the Bazel rules consist of.
//
//	steps build -files LIST -out FILE -- COMMAND...     run a command in a private copy of the listed files
//	steps test -binary FILE -dir FOLDER ... -- FLAG...  run a test binary as Bazel wants a test to be run
//
// The rules build it before anything else, so it uses the standard library only.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	err := dispatch(os.Args[1:])
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		// The command has said why.
		os.Exit(max(exit.ExitCode(), 1))
	default:
		fmt.Fprintln(os.Stderr, "steps:", err)
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "build":
			return build(args[1:])
		case "test":
			return test(args[1:], os.Stdout)
		}
	}
	return errors.New("usage: steps build|test FLAGS -- ARGUMENTS; the rules in tools/bazel call it")
}

// settings collects a flag that may be given several times, as NAME=VALUE.
type settings []string

func (s *settings) String() string { return strings.Join(*s, " ") }

func (s *settings) Set(value string) error {
	if !strings.Contains(value, "=") {
		return fmt.Errorf("%q is not NAME=VALUE", value)
	}
	*s = append(*s, value)
	return nil
}
