package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
)

const (
	childCommand = "child"

	// Children started at once: enough that one fork copies an address space while another
	// process is between its fork and its exec.
	forkers = 4
)

// forkExec starts n copies of this program, each of which answers with its number, on its output and
// in its exit status.
func forkExec(n int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	numbers := make(chan int)
	failed := make(chan error, forkers)
	var all sync.WaitGroup
	for range forkers {
		all.Go(func() {
			for i := range numbers {
				if err := startChild(self, i); err != nil {
					select {
					case failed <- err:
					default: // the first ones are enough
					}
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	fmt.Printf("forkexec: %d children answered\n", n)
	return nil
}

func startChild(self string, i int) error {
	cmd := exec.Command(self, childCommand, strconv.Itoa(i))
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		return fmt.Errorf("child %d: %w", i, err)
	}
	if got, want := string(out), fmt.Sprintln("child", i); got != want {
		return fmt.Errorf("child %d wrote %q, want %q", i, got, want)
	}
	if got, want := cmd.ProcessState.ExitCode(), i%100; got != want {
		return fmt.Errorf("child %d exited %d, want %d", i, got, want)
	}
	return nil
}

// child is the other side of startChild: it answers, and returns its exit status.
func child(args []string) int {
	i, err := strconv.Atoi(args[0])
	if err != nil {
		return 101
	}
	fmt.Println("child", i)
	return i % 100
}
