package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// A Container has a name for runsc and a bundle on disk. It is run once.
type Container struct {
	s      *Sandbox
	id     string
	bundle string
}

// containers counts all containers of this process: two sandboxes have different folders, but their
// containers would meet in one cgroup if they had one name.
var containers atomic.Int64

// NewContainer writes a bundle to disk. Nothing runs yet; Close of the sandbox removes it.
func (s *Sandbox) NewContainer(b Bundle) (*Container, error) {
	c := &Container{s: s, id: fmt.Sprintf("sentrymm-%d-%d", os.Getpid(), containers.Add(1))}
	c.bundle = filepath.Join(s.folder, c.id)
	if err := os.Mkdir(c.bundle, 0o755); err != nil {
		return nil, NoSpace(err, s.folder)
	}
	return c, b.write(c.bundle)
}

// ID is the container's name for runsc.
func (c *Container) ID() string { return c.id }

// Bundle is the folder with the container's config.json.
func (c *Container) Bundle() string { return c.bundle }

// Run runs the container from beginning to end as `runsc run` does, and returns its exit status; 128+n
// for a signal n. When ctx ends before the container does, nothing of it is left and the error is ctx's.
func (c *Container) Run(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd := c.s.Command(ctx, "run", "--bundle="+c.bundle, c.id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	// The kernel kills the sandbox and its gofer when runsc ends; what they hold of our pipes goes with
	// them. If it does not, do not wait for it.
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		if cleanErr := c.Delete(); cleanErr != nil {
			return 0, fmt.Errorf("%w; cleaning up: %w", ctx.Err(), cleanErr)
		}
		return 0, ctx.Err()
	}
	return ExitStatus(err)
}

// ExitStatus takes the error of an exec.Cmd for the exit status that it is. A signal that ended the
// program becomes 128+n, as in a shell. An error that is no exit status is returned.
func ExitStatus(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// Delete removes what runsc keeps of the container, running or not. It has a time of its own, since
// it is needed most when another one has run out.
func (c *Container) Delete() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := c.s.Command(ctx, "delete", "--force", c.id).CombinedOutput()
	if err != nil {
		return fmt.Errorf("runsc delete %s: %w: %s", c.id, err, bytes.TrimSpace(out))
	}
	return nil
}
