package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// build runs a command in a tree of its own and keeps the one file it makes.
func build(args []string) error {
	flags := flag.NewFlagSet("steps build", flag.ContinueOnError)
	list := flags.String("files", "", "file with a list of the files to copy")
	out := flags.String("out", "", "file that the command makes; {out} in its arguments stands for the path")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list == "" || *out == "" || flags.NArg() == 0 {
		return errors.New("build wants -files, -out and a command")
	}
	files, err := readList(*list)
	if err != nil {
		return err
	}
	made, err := filepath.Abs(*out)
	if err != nil {
		return err
	}
	// Beside what is made, so that its path, which runsc has in it, is the same each time.
	tree := made + ".tree"
	defer os.RemoveAll(tree)
	if err := copyTree(tree, files); err != nil {
		return fmt.Errorf("copying the declared files to %s: %w", tree, err)
	}
	command := slices.Clone(flags.Args())
	for i, arg := range command {
		command[i] = strings.ReplaceAll(arg, "{out}", made)
	}
	// A program that Bazel built is named by its path from here.
	if strings.Contains(command[0], "/") {
		if command[0], err = filepath.Abs(command[0]); err != nil {
			return err
		}
	}
	return runIn(tree, command, made)
}

func runIn(tree string, command []string, made string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = tree
	// Bazel links the checkout's .git near the tree. What is built there is not of that commit, nor is it to
	// change with each.
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree))
	// Bazel shows what an action says whether it worked or not. One that worked has nothing to say.
	said, err := cmd.CombinedOutput()
	if err != nil {
		os.Stderr.Write(said)
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return err
		}
		fmt.Fprintf(os.Stderr, "steps: %s: %v. It sees declared files only: "+
			"if a package or a file is missing that exists, name it in the target's deps or srcs\n", filepath.Base(command[0]), exit)
		return exit
	}
	if _, err := os.Stat(made); err != nil {
		return fmt.Errorf("%s made no file: %w", filepath.Base(command[0]), err)
	}
	return nil
}
